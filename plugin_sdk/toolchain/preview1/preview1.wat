;; WASI preview 1 on top of the few WASI 0.2 interfaces that Keelstone's host has: clocks, random
;; numbers, standard output and error (which go to the plugin's log). Files, sockets and waiting do not
;; exist: those functions answer "not supported", and waiting for a clock comes back at once, so that a
;; language's own sleep spins inside the guest's deadline instead of holding the host.
;;
;; Functions and layouts are those of
;; https://github.com/WebAssembly/WASI/blob/wasi-0.1/preview1/docs.md.
;;
;; The adapter owns no memory and asks for none. Go's runtime takes every page that memory grows by for
;; its own, and its exported allocator traps before `_initialize`: an adapter that does either breaks
;; it. Where the host must store a result that is larger than the caller's, the bytes behind the
;; caller's are kept aside in locals and put back.
(module
  (import "env" "memory" (memory 0))
  (import "wasi:clocks/wall-clock@0.2.0" "now" (func $wall (param i32)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $monotonic (result i64)))
  (import "wasi:random/random@0.2.0" "get-random-u64" (func $random (result i64)))
  (import "wasi:cli/exit@0.2.0" "exit" (func $exit (param i32)))
  (import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
  (import "wasi:cli/stderr@0.2.0" "get-stderr" (func $stderr (result i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))

  (global $EBADF i32 (i32.const 8))
  (global $EINVAL i32 (i32.const 28))
  (global $EIO i32 (i32.const 29))
  (global $ENOSYS i32 (i32.const 52))
  (global $LARGEST_WRITE i32 (i32.const 4096))
  (global $out (mut i32) (i32.const -1))
  (global $err (mut i32) (i32.const -1))

  ;; The handle of standard output (1) or error (2), asked for once.
  (func $stream (param $fd i32) (result i32)
    (if (i32.eq (local.get $fd) (i32.const 1))
      (then
        (if (i32.eq (global.get $out) (i32.const -1)) (then (global.set $out (call $stdout))))
        (return (global.get $out))))
    (if (i32.eq (global.get $err) (i32.const -1)) (then (global.set $err (call $stderr))))
    (global.get $err))

  ;; Write one piece; 1 if the host refused it. $area has room for 4 bytes, the host needs 12.
  (func $piece (param $to i32) (param $at i32) (param $size i32) (param $area i32) (result i32)
    (local $first i32) (local $rest i64) (local $failed i32)
    (local.set $first (i32.load (local.get $area)))
    (local.set $rest (i64.load offset=4 align=4 (local.get $area)))
    (call $write (local.get $to) (local.get $at) (local.get $size) (local.get $area))
    (local.set $failed (i32.load8_u (local.get $area)))
    (i32.store (local.get $area) (local.get $first))
    (i64.store offset=4 align=4 (local.get $area) (local.get $rest))
    (local.get $failed))

  (func (export "fd_write") (param $fd i32) (param $iovs i32) (param $count i32) (param $written i32) (result i32)
    (local $to i32) (local $at i32) (local $left i32) (local $size i32) (local $total i32)
    (if (i32.gt_u (i32.sub (local.get $fd) (i32.const 1)) (i32.const 1)) (then (return (global.get $EBADF))))
    (local.set $to (call $stream (local.get $fd)))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        (local.set $at (i32.load (local.get $iovs)))
        (local.set $left (i32.load offset=4 (local.get $iovs)))
        (block $empty
          (loop $more
            (br_if $empty (i32.eqz (local.get $left)))
            (local.set $size
              (select (local.get $left) (global.get $LARGEST_WRITE)
                (i32.lt_u (local.get $left) (global.get $LARGEST_WRITE))))
            (if (call $piece (local.get $to) (local.get $at) (local.get $size) (local.get $written))
              (then (return (global.get $EIO))))
            (local.set $at (i32.add (local.get $at) (local.get $size)))
            (local.set $left (i32.sub (local.get $left) (local.get $size)))
            (local.set $total (i32.add (local.get $total) (local.get $size)))
            (br $more)))
        (local.set $iovs (i32.add (local.get $iovs) (i32.const 8)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next)))
    (i32.store (local.get $written) (local.get $total))
    (i32.const 0))

  ;; Nanoseconds. The wall clock's record is 16 bytes, the caller's room 8.
  (func (export "clock_time_get") (param $id i32) (param $precision i64) (param $at i32) (result i32)
    (local $behind i64) (local $time i64)
    (if (i32.gt_u (local.get $id) (i32.const 1)) (then (return (global.get $EINVAL))))
    (if (local.get $id)
      (then (local.set $time (call $monotonic)))
      (else
        (local.set $behind (i64.load offset=8 (local.get $at)))
        (call $wall (local.get $at))
        (local.set $time
          (i64.add
            (i64.mul (i64.load (local.get $at)) (i64.const 1000000000))
            (i64.load32_u offset=8 (local.get $at))))
        (i64.store offset=8 (local.get $at) (local.get $behind))))
    (i64.store (local.get $at) (local.get $time))
    (i32.const 0))

  (func (export "clock_res_get") (param $id i32) (param $at i32) (result i32)
    (if (i32.gt_u (local.get $id) (i32.const 1)) (then (return (global.get $EINVAL))))
    (i64.store (local.get $at) (i64.const 1000))
    (i32.const 0))

  (func (export "random_get") (param $at i32) (param $size i32) (result i32)
    (local $word i64)
    (block $tail
      (loop $words
        (br_if $tail (i32.lt_u (local.get $size) (i32.const 8)))
        (i64.store align=1 (local.get $at) (call $random))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))
        (local.set $size (i32.sub (local.get $size) (i32.const 8)))
        (br $words)))
    (if (local.get $size) (then (local.set $word (call $random))))
    (block $done
      (loop $bytes
        (br_if $done (i32.eqz (local.get $size)))
        (i64.store8 (local.get $at) (local.get $word))
        (local.set $word (i64.shr_u (local.get $word) (i64.const 8)))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (local.set $size (i32.sub (local.get $size) (i32.const 1)))
        (br $bytes)))
    (i32.const 0))

  ;; No argument and no environment variable.
  (func $none (param $count i32) (param $size i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $size) (i32.const 0))
    (i32.const 0))
  (export "args_sizes_get" (func $none))
  (export "environ_sizes_get" (func $none))
  (func $nothing (param i32 i32) (result i32) (i32.const 0))
  (export "args_get" (func $nothing))
  (export "environ_get" (func $nothing))

  (func (export "proc_exit") (param $code i32)
    (call $exit (i32.ne (local.get $code) (i32.const 0)))
    (unreachable))

  (func (export "sched_yield") (result i32) (i32.const 0))

  ;; Every wait is over at once: clocks have rung, all else is not supported. A subscription is 48
  ;; bytes with its kind at 8, an event 32 with its error at 8 and its kind at 10.
  (func (export "poll_oneoff") (param $in i32) (param $out i32) (param $count i32) (param $events i32) (result i32)
    (if (i32.eqz (local.get $count)) (then (return (global.get $EINVAL))))
    (i32.store (local.get $events) (local.get $count))
    (loop $next
      (i64.store (local.get $out) (i64.load (local.get $in)))
      (i64.store offset=8 (local.get $out) (i64.const 0))
      (i64.store offset=16 (local.get $out) (i64.const 0))
      (i64.store offset=24 (local.get $out) (i64.const 0))
      (i32.store8 offset=10 (local.get $out) (i32.load8_u offset=8 (local.get $in)))
      (if (i32.load8_u offset=8 (local.get $in))
        (then (i32.store16 offset=8 (local.get $out) (global.get $ENOSYS))))
      (local.set $in (i32.add (local.get $in) (i32.const 48)))
      (local.set $out (i32.add (local.get $out) (i32.const 32)))
      (br_if $next (local.tee $count (i32.sub (local.get $count) (i32.const 1)))))
    (i32.const 0))

  ;; Of descriptors there are three: 0 is at its end, 1 and 2 are character devices.
  (func $standard (param $fd i32) (result i32)
    (select (i32.const 0) (global.get $EBADF) (i32.lt_u (local.get $fd) (i32.const 3))))
  (export "fd_close" (func $standard))
  (func (export "fd_fdstat_set_flags") (param $fd i32) (param $flags i32) (result i32)
    (call $standard (local.get $fd)))
  (func (export "fd_fdstat_get") (param $fd i32) (param $at i32) (result i32)
    (if (call $standard (local.get $fd)) (then (return (global.get $EBADF))))
    (i64.store (local.get $at) (i64.const 2))
    (i64.store offset=8 (local.get $at) (i64.const 66))
    (i64.store offset=16 (local.get $at) (i64.const 0))
    (i32.const 0))
  (func (export "fd_read") (param $fd i32) (param $iovs i32) (param $count i32) (param $read i32) (result i32)
    (if (local.get $fd) (then (return (global.get $EBADF))))
    (i32.store (local.get $read) (i32.const 0))
    (i32.const 0))
  (func (export "fd_prestat_get") (param i32 i32) (result i32) (global.get $EBADF))
  (func (export "fd_prestat_dir_name") (param i32 i32 i32) (result i32) (global.get $EBADF))

  ;; ------------------------------------------------------------------ what does not exist
  (func (export "fd_advise") (param i32 i64 i64 i32) (result i32) (global.get $ENOSYS))
  (func (export "fd_allocate") (param i32 i64 i64) (result i32) (global.get $ENOSYS))
  (func (export "fd_datasync") (param i32) (result i32) (global.get $ENOSYS))
  (func (export "fd_fdstat_set_rights") (param i32 i64 i64) (result i32) (global.get $ENOSYS))
  (func (export "fd_filestat_get") (param i32 i32) (result i32) (global.get $ENOSYS))
  (func (export "fd_filestat_set_size") (param i32 i64) (result i32) (global.get $ENOSYS))
  (func (export "fd_filestat_set_times") (param i32 i64 i64 i32) (result i32) (global.get $ENOSYS))
  (func (export "fd_pread") (param i32 i32 i32 i64 i32) (result i32) (global.get $ENOSYS))
  (func (export "fd_pwrite") (param i32 i32 i32 i64 i32) (result i32) (global.get $ENOSYS))
  (func (export "fd_readdir") (param i32 i32 i32 i64 i32) (result i32) (global.get $ENOSYS))
  (func (export "fd_renumber") (param i32 i32) (result i32) (global.get $ENOSYS))
  (func (export "fd_seek") (param i32 i64 i32 i32) (result i32) (global.get $ENOSYS))
  (func (export "fd_sync") (param i32) (result i32) (global.get $ENOSYS))
  (func (export "fd_tell") (param i32 i32) (result i32) (global.get $ENOSYS))
  (func (export "path_create_directory") (param i32 i32 i32) (result i32) (global.get $ENOSYS))
  (func (export "path_filestat_get") (param i32 i32 i32 i32 i32) (result i32) (global.get $ENOSYS))
  (func (export "path_filestat_set_times") (param i32 i32 i32 i32 i64 i64 i32) (result i32) (global.get $ENOSYS))
  (func (export "path_link") (param i32 i32 i32 i32 i32 i32 i32) (result i32) (global.get $ENOSYS))
  (func (export "path_open") (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32) (global.get $ENOSYS))
  (func (export "path_readlink") (param i32 i32 i32 i32 i32 i32) (result i32) (global.get $ENOSYS))
  (func (export "path_remove_directory") (param i32 i32 i32) (result i32) (global.get $ENOSYS))
  (func (export "path_rename") (param i32 i32 i32 i32 i32 i32) (result i32) (global.get $ENOSYS))
  (func (export "path_symlink") (param i32 i32 i32 i32 i32) (result i32) (global.get $ENOSYS))
  (func (export "path_unlink_file") (param i32 i32 i32) (result i32) (global.get $ENOSYS))
  (func (export "proc_raise") (param i32) (result i32) (global.get $ENOSYS))
  (func (export "sock_accept") (param i32 i32 i32) (result i32) (global.get $ENOSYS))
  (func (export "sock_recv") (param i32 i32 i32 i32 i32 i32) (result i32) (global.get $ENOSYS))
  (func (export "sock_send") (param i32 i32 i32 i32 i32) (result i32) (global.get $ENOSYS))
  (func (export "sock_shutdown") (param i32 i32) (result i32) (global.get $ENOSYS))
)
