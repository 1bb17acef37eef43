# PostgreSQL, where its volumes are cut one after another: a backup is begun before the first cut and ended before the last
# one, which must have the log (continuous-archiving, "Making a Base Backup Using the Low Level API"). Both live and die with
# the session. A temporary slot keeps the log that checkpoints in between would take away.
begin_backup() {
  tell "select pg_create_physical_replication_slot('refloat_' || pg_backend_pid(), true, true);"
  case $backup in
  pg_backup_start) tell "select pg_backup_start('refloat', true);" ;;
  *) tell "select pg_start_backup('refloat', true, false);" ;;
  esac
  tell '\echo refloat-begun'
  hear refloat-begun
}
between() {
  case $backup in
  pg_backup_start) ended='pg_backup_stop(false)' ;;
  *) ended='pg_stop_backup(false, false)' ;;
  esac
  tell "select 'refloat-files label=' || translate(encode(convert_to(labelfile, 'UTF8'), 'base64'), e'\\n', '')
    || ' map=' || translate(encode(convert_to(coalesce(spcmapfile, ''), 'UTF8'), 'base64'), e'\\n', '') from $ended;"
  tell '\echo refloat-ended'
  hear refloat-ended || return 1
  said=${heard##*refloat-files }
}
