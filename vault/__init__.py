"""The vault: restic's repository format, version 2, and the mover that fills and empties it.

Each layer knows only those below it (``.importlinter`` holds that):

    __main__ · mover                            a process, its spec, its progress, its result
    verify · catalogue · archive · extract      what is done with a vault
    repository · snapshots · filing · filling   an open vault; contents on their way in and out
    writing · reading · locks · placing         blobs, vault lock, things on the volume
    index · files · keys · disk                 stored files; the file system's facts
    packs · nodes                               the format's own structures
    blobs · chunking · gotext · instants …      their elements
    sealing · compressing                       bytes
"""
