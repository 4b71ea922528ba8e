;; Is born with 1 GiB of memory.
(component
  (core module $main
    (memory (export "memory") 16384)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
    (func (export "handle") (param i32 i32 i32 i32) (result i32) (i32.const 16)))
  (core instance $main (instantiate $main))
  (func (export "handle") (param "hook" string) (param "payload" string) (result (result string (error string)))
    (canon lift (core func $main "handle")
      (memory (core memory $main "memory")) (realloc (core func $main "realloc")) string-encoding=utf8)))
