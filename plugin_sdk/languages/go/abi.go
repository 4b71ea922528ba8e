package keelstone

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"unsafe"
)

// The component model's canonical ABI (UTF-8) for the shapes of keelstone.wit. Go's pointers are 8 bytes
// wide here and the contract's 4, so addresses are numbers. Source:
// https://github.com/WebAssembly/component-model/blob/main/design/mvp/CanonicalABI.md

// What the host has been given room for in this call: the collector must not take it.
var kept [][]uint64

// Allocate is the host's allocator, aligned for everything.
func Allocate(old, oldSize, size uint32) uint32 {
	if size == 0 {
		return 8
	}
	room := make([]uint64, (uint64(size)+7)/8)
	kept = append(kept, room)
	if old != 0 && oldSize != 0 {
		at := unsafe.Pointer(&room[0])
		copy(unsafe.Slice((*byte)(at), size), unsafe.Slice((*byte)(pointer(old)), min(oldSize, size)))
	}
	return address(unsafe.Pointer(&room[0]))
}

// Release ends a call: the host has taken the answer.
func Release() {
	kept = nil
	answer.text = ""
}

func address(at unsafe.Pointer) uint32 { return uint32(uintptr(at)) }

func pointer(at uint32) unsafe.Pointer {
	// Linear memory begins at 0 and does not move: an address is an offset into it.
	return unsafe.Add(unsafe.Pointer(nil), uintptr(at))
}

// Text is the text at an address, copied.
func Text(at, size uint32) string {
	if size == 0 {
		return ""
	}
	return string(unsafe.Slice((*byte)(pointer(at)), size))
}

// text as it lies in memory: its address and size.
type span struct{ at, size uint32 }

func spanOf(text string) span {
	if text == "" {
		return span{}
	}
	return span{address(unsafe.Pointer(unsafe.StringData(text))), uint32(len(text))}
}

func spansOf(texts []string) []span {
	spans := make([]span, len(texts)+1)
	for i, text := range texts {
		spans[i] = spanOf(text)
	}
	return spans
}

// area is room for the largest result of a host call.
type area [4]uint64

func (a *area) at() unsafe.Pointer { return unsafe.Pointer(&a[0]) }

func (a *area) byte(offset int) byte { return *(*byte)(unsafe.Add(a.at(), offset)) }

func (a *area) u32(offset int) uint32 { return *(*uint32)(unsafe.Add(a.at(), offset)) }

func (a *area) text(offset int) string { return Text(a.u32(offset), a.u32(offset+4)) }

// failed is the failure in a result whose payload begins at offset, nil if there is none.
func (a *area) failed(call string, offset int) error {
	if a.byte(0) == 0 {
		return nil
	}
	return &HostError{call, a.text(offset), a.text(offset + 8)}
}

// Answer is the result of handle: result<string, string>.
var answer struct {
	failed uint32
	span   span
	text   string
}

// Answered gives the reply of a hook, or its error, to the host. The entry defers nothing else: a panic
// ends as a failure, with the stack in the plugin's log.
func Answered(dispatch func() (any, error)) uint32 {
	text, err := encoded(dispatch)
	answer.failed = 0
	if err != nil {
		answer.failed, text = 1, err.Error()
	}
	answer.text = text
	answer.span = spanOf(text)
	return address(unsafe.Pointer(&answer))
}

func encoded(dispatch func() (any, error)) (text string, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			fmt.Fprintf(os.Stderr, "panic: %v\n%s", cause, debug.Stack())
			err = fmt.Errorf("panic: %v", cause)
		}
	}()
	reply, err := dispatch()
	if err != nil {
		return "", err
	}
	raw, err := json.Marshal(reply)
	return string(raw), err
}
