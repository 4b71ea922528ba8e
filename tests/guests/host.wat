;; Makes the host call that its payload names: one letter, then up to two arguments with a new
;; line between. Answers what came back, or "!" and the failure's code.
;;   g get  s set  d delete  k list-keys  u set and get  t set and trap  c config  e emit  l log
;;   h GET  p POST  R config 150 times  L log without end  S set a, b, c, ... until refused
(component
  (import "keelstone:plugin/types@1.0.0" (instance $types
    (type $f (record (field "code" string) (field "message" string)))
    (export "failure" (type (eq $f)))))
  (alias export $types "failure" (type $failure))
  (import "keelstone:plugin/log@1.0.0" (instance $log
    (type $l (enum "debug" "info" "warn" "error"))
    (export "level" (type $level (eq $l)))
    (export "write" (func (param "level" $level) (param "message" string)))))
  (import "keelstone:plugin/config@1.0.0" (instance $config
    (alias outer 1 $failure (type $f)) (export "failure" (type $failure (eq $f)))
    (export "get" (func (param "key" string) (result (result (option string) (error $failure)))))))
  (import "keelstone:plugin/kv@1.0.0" (instance $kv
    (alias outer 1 $failure (type $f)) (export "failure" (type $failure (eq $f)))
    (export "get" (func (param "key" string) (result (result (option string) (error $failure)))))
    (export "set" (func (param "key" string) (param "value" string) (result (result (error $failure)))))
    (export "delete" (func (param "key" string) (result (result (error $failure)))))
    (export "list-keys" (func (param "prefix" string) (param "limit" u32) (result (result (list string) (error $failure)))))))
  (import "keelstone:plugin/http@1.0.0" (instance $http
    (alias outer 1 $failure (type $f)) (export "failure" (type $failure (eq $f)))
    (type $h (record (field "name" string) (field "value" string)))
    (export "header" (type $header (eq $h)))
    (type $q (record (field "method" string) (field "url" string) (field "headers" (list $header)) (field "body" (option string))))
    (export "request" (type $request (eq $q)))
    (type $s (record (field "status" u16) (field "headers" (list $header)) (field "body" string)))
    (export "response" (type $response (eq $s)))
    (export "send" (func (param "request" $request) (result (result $response (error $failure)))))))
  (import "keelstone:plugin/events@1.0.0" (instance $events
    (alias outer 1 $failure (type $f)) (export "failure" (type $failure (eq $f)))
    (export "emit" (func (param "event-type" string) (param "data" string) (result (result (error $failure)))))))
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
  (core func $log (canon lower (func $log "write") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $config (canon lower (func $config "get") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $get (canon lower (func $kv "get") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $set (canon lower (func $kv "set") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $delete (canon lower (func $kv "delete") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $list (canon lower (func $kv "list-keys") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $send (canon lower (func $http "send") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $emit (canon lower (func $events "emit") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core module $main
    (import "libc" "memory" (memory 1))
    (import "host" "log" (func $log (param i32 i32 i32)))
    (import "host" "config" (func $config (param i32 i32 i32)))
    (import "host" "get" (func $get (param i32 i32 i32)))
    (import "host" "set" (func $set (param i32 i32 i32 i32 i32)))
    (import "host" "delete" (func $delete (param i32 i32 i32)))
    (import "host" "list" (func $list (param i32 i32 i32 i32)))
    (import "host" "send" (func $send (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
    (import "host" "emit" (func $emit (param i32 i32 i32 i32 i32)))
    (data (i32.const 64) "none" "done" "GET" "POST" "," "x-guest" "yes")
    (func $answer (param $text i32) (param $len i32) (result i32)
      (i32.store (i32.const 16) (i32.const 0))
      (i32.store (i32.const 20) (local.get $text))
      (i32.store (i32.const 24) (local.get $len))
      (i32.const 16))
    ;; "!" and the failure's code, which every result holds at the same place
    (func $refused (result i32)
      (i32.store8 (i32.const 256) (i32.const 33))
      (memory.copy (i32.const 257) (i32.load (i32.const 132)) (i32.load (i32.const 136)))
      (call $answer (i32.const 256) (i32.add (i32.const 1) (i32.load (i32.const 136)))))
    (func $optional (result i32)
      (if (result i32) (i32.load8_u (i32.const 128))
        (then (call $refused))
        (else
          (if (result i32) (i32.load8_u (i32.const 132))
            (then (call $answer (i32.load (i32.const 136)) (i32.load (i32.const 140))))
            (else (call $answer (i32.const 64) (i32.const 4)))))))
    (func $nothing (result i32)
      (if (result i32) (i32.load8_u (i32.const 128))
        (then (call $refused))
        (else (call $answer (i32.const 68) (i32.const 4)))))
    (func $joined (result i32)
      (local $i i32) (local $to i32) (local $item i32)
      (if (i32.load8_u (i32.const 128)) (then (return (call $refused))))
      (local.set $to (i32.const 512))
      (block $end
        (loop $next
          (br_if $end (i32.ge_u (local.get $i) (i32.load (i32.const 136))))
          (if (local.get $i)
            (then (i32.store8 (local.get $to) (i32.const 44)) (local.set $to (i32.add (local.get $to) (i32.const 1)))))
          (local.set $item (i32.add (i32.load (i32.const 132)) (i32.shl (local.get $i) (i32.const 3))))
          (memory.copy (local.get $to) (i32.load (local.get $item)) (i32.load offset=4 (local.get $item)))
          (local.set $to (i32.add (local.get $to) (i32.load offset=4 (local.get $item))))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $next)))
      (call $answer (i32.const 512) (i32.sub (local.get $to) (i32.const 512))))
    (func $response (result i32)
      (if (result i32) (i32.load8_u (i32.const 128))
        (then (call $refused))
        (else (call $answer (i32.load (i32.const 144)) (i32.load (i32.const 148))))))
    (func (export "handle") (param $hook i32) (param $hook_len i32) (param $text i32) (param $len i32) (result i32)
      (local $op i32) (local $a i32) (local $a_len i32) (local $b i32) (local $b_len i32) (local $i i32)
      (local.set $op (i32.load8_u (local.get $text)))
      (local.set $a (i32.add (local.get $text) (i32.const 1)))
      (local.set $a_len (i32.sub (local.get $len) (i32.const 1)))
      (block $split
        (loop $look
          (br_if $split (i32.ge_u (local.get $i) (local.get $a_len)))
          (if (i32.eq (i32.load8_u (i32.add (local.get $a) (local.get $i))) (i32.const 10))
            (then
              (local.set $b (i32.add (i32.add (local.get $a) (local.get $i)) (i32.const 1)))
              (local.set $b_len (i32.sub (i32.sub (local.get $a_len) (local.get $i)) (i32.const 1)))
              (local.set $a_len (local.get $i))
              (br $split)))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $look)))
      (if (i32.eq (local.get $op) (i32.const 103)) (then ;; g
        (call $get (local.get $a) (local.get $a_len) (i32.const 128)) (return (call $optional))))
      (if (i32.eq (local.get $op) (i32.const 115)) (then ;; s
        (call $set (local.get $a) (local.get $a_len) (local.get $b) (local.get $b_len) (i32.const 128)) (return (call $nothing))))
      (if (i32.eq (local.get $op) (i32.const 100)) (then ;; d
        (call $delete (local.get $a) (local.get $a_len) (i32.const 128)) (return (call $nothing))))
      (if (i32.eq (local.get $op) (i32.const 107)) (then ;; k
        (call $list (local.get $a) (local.get $a_len) (i32.const 50) (i32.const 128)) (return (call $joined))))
      (if (i32.eq (local.get $op) (i32.const 99)) (then ;; c
        (call $config (local.get $a) (local.get $a_len) (i32.const 128)) (return (call $optional))))
      (if (i32.eq (local.get $op) (i32.const 101)) (then ;; e
        (call $emit (local.get $a) (local.get $a_len) (local.get $b) (local.get $b_len) (i32.const 128)) (return (call $nothing))))
      (if (i32.eq (local.get $op) (i32.const 108)) (then ;; l
        (call $log (i32.const 2) (local.get $a) (local.get $a_len)) (return (call $answer (i32.const 68) (i32.const 4)))))
      (if (i32.eq (local.get $op) (i32.const 104)) (then ;; h
        (call $send (i32.const 72) (i32.const 3) (local.get $a) (local.get $a_len) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 128))
        (return (call $response))))
      (if (i32.eq (local.get $op) (i32.const 112)) (then ;; p
        (call $send (i32.const 75) (i32.const 4) (local.get $a) (local.get $a_len) (i32.const 0) (i32.const 0) (i32.const 1) (local.get $b) (local.get $b_len) (i32.const 128))
        (return (call $response))))
      (if (i32.eq (local.get $op) (i32.const 117)) (then ;; u
        (call $set (local.get $a) (local.get $a_len) (local.get $b) (local.get $b_len) (i32.const 128)) (call $get (local.get $a) (local.get $a_len) (i32.const 128)) (return (call $optional))))
      (if (i32.eq (local.get $op) (i32.const 116)) (then ;; t
        (call $set (local.get $a) (local.get $a_len) (local.get $b) (local.get $b_len) (i32.const 128)) unreachable))
      (if (i32.eq (local.get $op) (i32.const 76)) (then ;; L
        (loop $again (call $log (i32.const 1) (local.get $a) (local.get $a_len)) (br $again))))
      (if (i32.eq (local.get $op) (i32.const 82)) (then ;; R
        (local.set $i (i32.const 0))
        (loop $again
          (call $config (local.get $a) (local.get $a_len) (i32.const 128))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if $again (i32.lt_u (local.get $i) (i32.const 150))))
        (return (call $optional))))
      (if (i32.eq (local.get $op) (i32.const 83)) (then ;; S
        (loop $again (call $set (local.get $a) (local.get $a_len) (local.get $b) (local.get $b_len) (i32.const 128)) (i32.store8 (local.get $a) (i32.add (i32.const 1) (i32.load8_u (local.get $a))))
          (br_if $again (i32.eqz (i32.load8_u (i32.const 128)))))
        (return (call $refused))))
      unreachable))
  (core instance $main (instantiate $main
    (with "libc" (instance $libc))
    (with "host" (instance (export "log" (func $log)) (export "config" (func $config)) (export "get" (func $get)) (export "set" (func $set)) (export "delete" (func $delete)) (export "list" (func $list)) (export "send" (func $send)) (export "emit" (func $emit))))))
  (func (export "handle") (param "hook" string) (param "payload" string) (result (result string (error string)))
    (canon lift (core func $main "handle")
      (memory (core memory $libc "memory")) (realloc (core func $libc "realloc")) string-encoding=utf8)))
