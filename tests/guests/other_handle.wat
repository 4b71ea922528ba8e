;; Exports `handle` with another type.
(component
  (core module $main (func (export "handle") (param i32) (result i32) (local.get 0)))
  (core instance $main (instantiate $main))
  (func (export "handle") (param "n" u32) (result u32) (canon lift (core func $main "handle"))))
