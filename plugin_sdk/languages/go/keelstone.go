// Package keelstone is Keelstone's guest library for Go.
//
// Write one exported function for each hook of the manifest, with the hook's name in Go's spelling:
//
//	package guest
//
//	import "keelstone"
//
//	func UserCreating(draft keelstone.UserDraft) (*keelstone.UserDraft, error) {
//		if draft.Name == "" {
//			return nil, keelstone.Reject("Please tell us your name.")
//		}
//		return nil, nil
//	}
//
// A filter returns the changed payload, or nil to keep it, or the error [Reject] to refuse it. A decide
// hook returns [Allow], [Deny], or nil for no opinion. An observe hook returns only an error. Any other
// error fails the call and keeps nothing of what it did (an event comes again later).
//
// Host calls are grouped by capability: [Log], [Config], [KV], [HTTP], [Events] and so on. They return a
// [HostError] when the host refuses. Using one that the manifest does not ask for stops the build with a
// message that says so. What is printed to standard output or error is written to the plugin's log.
package keelstone

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Decision is a decide hook's answer.
type Decision struct {
	Allow  bool   `json:"allow"`
	Reason string `json:"reason"`
}

// Allow is a decide hook's yes.
func Allow(reason string) *Decision { return &Decision{true, reason} }

// Deny is a decide hook's no.
func Deny(reason string) *Decision { return &Decision{false, reason} }

type rejection struct{ reason string }

func (r rejection) Error() string { return "rejected: " + r.reason }

// Reject is the error with which a filter refuses a payload; the reason is shown to the caller.
func Reject(reason string) error { return rejection{reason} }

// HostError says that the host refused or failed a call. Code is stable (keelstone.wit lists them).
type HostError struct {
	Call, Code, Message string
}

func (e *HostError) Error() string { return fmt.Sprintf("%s: %s: %s", e.Call, e.Code, e.Message) }

// Decode reads JSON into value; numbers of no declared type become json.Number, which keeps their text.
func Decode(text string, value any) error {
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.UseNumber()
	if err := decoder.Decode(value); err != nil {
		return err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return errors.New("something follows the JSON value")
	}
	return nil
}

// Filtered is for the generated entry: a filter's answer as the contract's reply.
func Filtered[T any](payload *T, err error) (any, error) {
	var refused rejection
	if errors.As(err, &refused) {
		return map[string]any{"reject": map[string]string{"reason": refused.reason}}, nil
	}
	if err != nil || payload == nil {
		return struct{}{}, err
	}
	return map[string]*T{"payload": payload}, nil
}

// Decided is for the generated entry: a decide hook's answer as the contract's reply.
func Decided(decision *Decision, err error) (any, error) {
	if err != nil || decision == nil {
		return struct{}{}, err
	}
	return map[string]*Decision{"answer": decision}, nil
}

// Observed is for the generated entry: an observe hook's answer as the contract's reply.
func Observed(err error) (any, error) { return map[string]bool{"done": true}, err }
