# RabbitMQ: its application is stopped on this node, by a process in the node itself that starts it again. That one lets go
# when our client or our words end, and after $lease seconds of silence; only if it dies as well is the watchdog needed.
ctl() { timeout "$1" rabbitmqctl -q $2 </dev/null 2>&1; }
# The client has no standard input (rabbitmq-env: -noinput), so words go by a pipe that the node reads; its answers are the
# client's output. One line without $ and backslashes, which Debian's rabbitmqctl hands to another shell.
keeper() {
  printf %s "Client = erlang:group_leader(),
    Say = fun(Word) -> catch io:format(Client, \"refloat-~s~n\", [Word]) end,
    Keeper = erlang:spawn(fun() ->
      erlang:group_leader(erlang:whereis(user), erlang:self()),
      Watch = erlang:monitor(process, Client),
      Words = erlang:open_port({spawn_executable, \"/bin/cat\"}, [{args, [\"$dir/words\"]}, {line, 80}, exit_status]),
      Over = fun(Held) -> Held andalso rabbit:start() end,
      Keep = fun Again(Held) ->
        receive
          {Words, {data, {_, \"freeze\"}}} -> rabbit:stop(), Say(held), Again(true);
          {Words, {data, {_, \"beat\"}}} ->
            Say(case rabbit:is_running() of Held -> running; _ -> stopped end), Say(beat), Again(Held);
          {Words, {data, {_, \"release\"}}} -> Over(Held), Say(released);
          {Words, {exit_status, _}} -> Over(Held);
          {'DOWN', Watch, process, _, _} -> Over(Held)
        after case Held of true -> ${lease}000; false -> 120000 end -> Over(Held)
        end
      end,
      Say(armed),
      Keep(false)
    end),
    Ended = erlang:monitor(process, Keeper),
    receive {'DOWN', Ended, process, _, _} -> ok end." | tr '\n' ' '
}
arm() {
  [ -x /bin/cat ] || { why="no /bin/cat in this container"; return 1; }
  # the node may run as another user than we do
  chmod 711 "$dir" && mkfifo -m 644 "$dir/words" || { why="no named pipe in $dir"; return 1; }
  client rabbitmqctl -q eval "$(keeper)" || return 1
  exec 5<>"$dir/words"
  hear refloat-armed
}
facts() { facts=; }
freeze() {
  echo freeze >&5
  hear refloat-held || return 1
  sync
}
beat() {
  echo beat >&5
  hear refloat-beat || return 1
  case $heard in *refloat-stopped*) return 0 ;; esac
  why="somebody started it meanwhile"
  return 1
}
release() {
  beat || return 1
  echo release >&5
  hear refloat-released
}
undo() { said=$(ctl 20 start_app) || { why="start_app failed: $(printf %s "$said" | tail -n 1)"; return 1; }; }
