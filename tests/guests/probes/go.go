// Package guest is the probe of the guest library for Go: it does what its payload's attributes tell it.
package guest

import (
	"errors"
	"fmt"
	"strings"

	"keelstone"
)

// UserCreating does what attributes.do says.
func UserCreating(draft keelstone.UserDraft) (*keelstone.UserDraft, error) {
	todo, _ := draft.Attributes["do"].(string)
	said, err := do(todo)
	draft.Attributes["said"] = append([]any{}, said...)
	return &draft, err
}

func do(todo string) ([]any, error) {
	switch todo {
	case "settings":
		return settings()
	case "kv":
		return store()
	case "refused":
		return refused(), nil
	case "fetch":
		return fetch()
	case "more":
		return more()
	case "emit":
		return nil, keelstone.Events.Emit("probe.tried", map[string]int{"n": 7})
	case "insist":
		return nil, keelstone.KV.Set("a", "1")
	case "fail":
		return nil, errors.New("cannot")
	case "crash":
		panic("on purpose")
	case "log":
		keelstone.Log.Debug("d")
		keelstone.Log.Info("i \u00e9\U0001F600")
		keelstone.Log.Warn("w")
		keelstone.Log.Error("e")
		fmt.Println("printed")
	}
	return nil, nil
}

func settings() ([]any, error) {
	text, err := keelstone.Config.Text("text", "none")
	number, second := keelstone.Config.Number("number", -1)
	flag, third := keelstone.Config.Flag("flag", false)
	list, fourth := keelstone.Config.List("list")
	said := []any{text, number, flag}
	for _, item := range list {
		said = append(said, item)
	}
	return said, errors.Join(err, second, third, fourth)
}

func store() ([]any, error) {
	err := errors.Join(
		keelstone.KV.Set("b", "2"), keelstone.KV.Set("a", "1 \u00e9\U0001F600"), keelstone.KV.Set("c", ""),
	)
	c, there, _ := keelstone.KV.Get("c")
	said := []any{there && c == ""}
	err = errors.Join(err, keelstone.KV.Delete("c"))
	_, there, _ = keelstone.KV.Get("c")
	said = append(said, !there)
	keys, _ := keelstone.KV.Keys("", 10)
	for _, key := range keys {
		value, _, _ := keelstone.KV.Get(key)
		said = append(said, value)
	}
	return said, err
}

func code(err error, otherwise string) string {
	var refused *keelstone.HostError
	if errors.As(err, &refused) {
		return refused.Code
	}
	return otherwise
}

func refused() []any {
	_, _, got := keelstone.KV.Get("a")
	_, listed := keelstone.KV.Keys("", 1)
	emitted := keelstone.Events.Emit("probe.tried", struct{}{})
	_, sent := keelstone.HTTP.Send(keelstone.Request{URL: "https://example.com/"})
	_, asked := keelstone.Config.Text("text", "")
	return []any{
		code(got, "got"), code(listed, "listed"), code(emitted, "emitted"), code(sent, "sent"), code(asked, "asked"),
	}
}

func fetch() ([]any, error) {
	target, _ := keelstone.Config.Text("target", "")
	answer, err := keelstone.HTTP.Post(target+"echo", map[string]int{"x": 1}, keelstone.Header{Name: "x-probe", Value: "yes"})
	header, there := answer.Header("X-Answer")
	if !there {
		header = "none"
	}
	return []any{answer.Status, answer.OK(), answer.Body, header}, err
}

func more() ([]any, error) {
	err := keelstone.KV.SetMany(map[string]string{"x": "1", "y": ""})
	said := []any{}
	many, second := keelstone.KV.GetMany("x", "nope", "y")
	for _, value := range many {
		said = append(said, value)
	}
	one := "1"
	swapped, third := keelstone.KV.SetIf("x", "2", &one)
	created, fourth := keelstone.KV.SetIf("x", "3", nil)
	fifth := keelstone.KV.SetFor("t", "gone", 60)
	t, _, _ := keelstone.KV.Get("t")
	now, _ := keelstone.Clock.Now()
	before, _ := keelstone.Clock.Monotonic()
	after, _ := keelstone.Clock.Monotonic()
	first, _ := keelstone.Random.Number()
	next, _ := keelstone.Random.Number()
	hex, _ := keelstone.Random.Hex(8)
	token, sixth := keelstone.Secrets.Placeholder("token")
	said = append(said, swapped, created, t, now > 1_700_000_000_000, after >= before, first != next, len(hex) == 16, token != "")
	brief := "Be brief."
	answer, seventh := keelstone.AI.Complete(keelstone.Prompt{Model: "small", System: &brief, Text: "What?", MaxTokens: 50})
	id, eighth := keelstone.Notify.Send(keelstone.Notice{Channel: "email", Recipient: "ann@example.com", Subject: "Hi", Body: "Body \u00e9"})
	var found struct{ Found string }
	ninth := keelstone.Services.Call("acme/other", "lookup", map[string]string{"q": "\u00e9"}, &found)
	_, large := keelstone.AI.Complete(keelstone.Prompt{Model: "large", Text: "What?", MaxTokens: 50})
	said = append(said, answer.Text, answer.Model, answer.Tokens, id, found.Found, code(large, "answered"))
	return said, errors.Join(err, second, third, fourth, fifth, sixth, seventh, eighth, ninth)
}

// AccessDeciding allows, denies, or has no opinion.
func AccessDeciding(request keelstone.AccessRequest) (*keelstone.Decision, error) {
	switch request.Action {
	case "allow":
		return keelstone.Allow(request.Principal + "/" + strings.Join(request.Roles, ",")), nil
	case "deny":
		return keelstone.Deny("no"), nil
	}
	return nil, nil
}

// EventReceived notes the event.
func EventReceived(event keelstone.EventView) error {
	if _, there := event.Data["fail"]; there {
		return errors.New("later")
	}
	keelstone.Log.Info(fmt.Sprintf("%s %d %s", event.Type, event.Version, event.Tenant))
	return nil
}
