;; Imports kv.get with another type than the contract's.
(component
  (import "keelstone:plugin/kv@1.0.0" (instance $kv (export "get" (func (param "key" (list u8)) (result u32)))))
  (core module $libc
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32) (param $size i32) (result i32)
      (local $at i32) (local $end i32) (local $have i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (local.set $end (i32.add (local.get $at) (local.get $size)))
      (local.set $have (i32.shl (memory.size) (i32.const 16)))
      (if (i32.gt_u (local.get $end) (local.get $have))
        (then
          (if (i32.eq (i32.const -1)
                (memory.grow (i32.shr_u (i32.add (i32.sub (local.get $end) (local.get $have)) (i32.const 65535)) (i32.const 16))))
            (then unreachable))))
      (global.set $next (local.get $end))
      (local.get $at)))
  (core instance $libc (instantiate $libc))
  (core func $f (canon lower (func $kv "get") (memory (core memory $libc "memory"))))
  (core module $main
    (import "libc" "memory" (memory 1))
    (import "host" "f" (func $f (param i32 i32) (result i32)))
    (func (export "handle") (param $hook i32) (param $hook_len i32) (param $text i32) (param $len i32) (result i32)
      (i32.store (i32.const 16) (i32.const 0))
      (i32.store (i32.const 20) (local.get $text))
      (i32.store (i32.const 24) (local.get $len))
      (i32.const 16)))
  (core instance $main (instantiate $main
    (with "libc" (instance $libc))
    (with "host" (instance (export "f" (func $f))))))
  (func (export "handle") (param "hook" string) (param "payload" string) (result (result string (error string)))
    (canon lift (core func $main "handle")
      (memory (core memory $libc "memory")) (realloc (core func $libc "realloc")) string-encoding=utf8)))
