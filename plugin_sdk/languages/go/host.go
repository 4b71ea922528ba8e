package keelstone

import (
	"encoding/json"
	"runtime"
	"strings"
	"unsafe"
)

// Host calls of keelstone.wit, by capability. Each group is a value, so that it reads like a package:
// keelstone.KV.Get("key").
var (
	Log      log
	Config   config
	KV       kv
	HTTP     http
	Events   events
	Secrets  secrets
	AI       ai
	Notify   notify
	Clock    clock
	Random   random
	Services services
)

type (
	log      struct{}
	config   struct{}
	kv       struct{}
	http     struct{}
	events   struct{}
	secrets  struct{}
	ai       struct{}
	notify   struct{}
	clock    struct{}
	random   struct{}
	services struct{}
)

// data is where a text lies, for handing to the host.
func data(text string) unsafe.Pointer { return unsafe.Pointer(unsafe.StringData(text)) }

func size(text string) uint32 { return uint32(len(text)) }

// ---------------------------------------------------------------- log

//go:wasmimport keelstone:plugin/log@1.1.0 write
func hostLog(level uint32, at unsafe.Pointer, size uint32)

func (log) line(level uint32, text string) {
	hostLog(level, data(text), size(text))
	runtime.KeepAlive(text)
}

// Debug writes a line for whoever looks for a fault.
func (l log) Debug(text string) { l.line(0, text) }

// Info writes a line that says what was done.
func (l log) Info(text string) { l.line(1, text) }

// Warn writes a line about something odd that did not stop the work.
func (l log) Warn(text string) { l.line(2, text) }

// Error writes a line about something that failed.
func (l log) Error(text string) { l.line(3, text) }

// ---------------------------------------------------------------- config

//go:wasmimport keelstone:plugin/config@1.1.0 get
func hostConfig(key unsafe.Pointer, size uint32, out unsafe.Pointer)

// Get reads one setting of the tenant into value; false if it is not set or does not fit.
func (config) Get(key string, value any) (bool, error) {
	var out area
	hostConfig(data(key), size(key), out.at())
	if err := out.failed("config.get", 4); err != nil || out.byte(4) == 0 {
		return false, err
	}
	return Decode(out.text(8), value) == nil, nil
}

// Text is a string setting.
func (c config) Text(key, otherwise string) (string, error) { return setting(c, key, otherwise) }

// Int is a setting that is a whole number.
func (c config) Int(key string, otherwise int) (int, error) { return setting(c, key, otherwise) }

// Number is a numeric setting.
func (c config) Number(key string, otherwise float64) (float64, error) {
	return setting(c, key, otherwise)
}

// Flag is a true or false setting.
func (c config) Flag(key string, otherwise bool) (bool, error) { return setting(c, key, otherwise) }

// List is a setting that is a list of strings; empty if it is not set.
func (c config) List(key string) ([]string, error) { return setting(c, key, []string{}) }

func setting[T any](c config, key string, otherwise T) (T, error) {
	var found T
	ok, err := c.Get(key, &found)
	if !ok {
		return otherwise, err
	}
	return found, nil
}

// ---------------------------------------------------------------- kv

//go:wasmimport keelstone:plugin/kv@1.1.0 get
func hostKVGet(key unsafe.Pointer, size uint32, out unsafe.Pointer)

//go:wasmimport keelstone:plugin/kv@1.1.0 set
func hostKVSet(key unsafe.Pointer, size uint32, value unsafe.Pointer, valueSize uint32, out unsafe.Pointer)

//go:wasmimport keelstone:plugin/kv@1.1.0 delete
func hostKVDelete(key unsafe.Pointer, size uint32, out unsafe.Pointer)

//go:wasmimport keelstone:plugin/kv@1.1.0 list-keys
func hostKVKeys(prefix unsafe.Pointer, size uint32, limit uint32, out unsafe.Pointer)

//go:wasmimport keelstone:plugin/kv@1.1.0 set-if
func hostKVSetIf(key unsafe.Pointer, size uint32, value unsafe.Pointer, valueSize uint32, some uint32, expected unsafe.Pointer, expectedSize uint32, out unsafe.Pointer)

//go:wasmimport keelstone:plugin/kv@1.1.0 set-for
func hostKVSetFor(key unsafe.Pointer, size uint32, value unsafe.Pointer, valueSize uint32, seconds uint32, out unsafe.Pointer)

//go:wasmimport keelstone:plugin/kv@1.1.0 get-many
func hostKVGetMany(keys unsafe.Pointer, count uint32, out unsafe.Pointer)

//go:wasmimport keelstone:plugin/kv@1.1.0 set-many
func hostKVSetMany(entries unsafe.Pointer, count uint32, out unsafe.Pointer)

// Get is the value of a key; false if there is none.
func (kv) Get(key string) (string, bool, error) {
	var out area
	hostKVGet(data(key), size(key), out.at())
	if err := out.failed("kv.get", 4); err != nil || out.byte(4) == 0 {
		return "", false, err
	}
	return out.text(8), true, nil
}

// Set writes one value.
func (kv) Set(key, value string) error {
	var out area
	hostKVSet(data(key), size(key), data(value), size(value), out.at())
	return out.failed("kv.set", 4)
}

// Delete removes one key; nothing happens if there is none.
func (kv) Delete(key string) error {
	var out area
	hostKVDelete(data(key), size(key), out.at())
	return out.failed("kv.delete", 4)
}

// Keys are those that begin with prefix, in order, at most limit.
func (kv) Keys(prefix string, limit uint32) ([]string, error) {
	var out area
	hostKVKeys(data(prefix), size(prefix), limit, out.at())
	if err := out.failed("kv.list-keys", 4); err != nil {
		return nil, err
	}
	keys := make([]string, out.u32(8))
	for i := range keys {
		one := (*span)(pointer(out.u32(4) + uint32(i)*8))
		keys[i] = Text(one.at, one.size)
	}
	return keys, nil
}

// SetIf writes only if the key has the value expected (nil: there is no such key). False if not.
func (kv) SetIf(key, value string, expected *string) (bool, error) {
	var out area
	some, text := uint32(0), ""
	if expected != nil {
		some, text = 1, *expected
	}
	hostKVSetIf(data(key), size(key), data(value), size(value), some, data(text), size(text), out.at())
	if err := out.failed("kv.set-if", 4); err != nil {
		return false, err
	}
	return out.byte(4) != 0, nil
}

// SetFor writes a value that is gone after so many seconds.
func (kv) SetFor(key, value string, seconds uint32) error {
	var out area
	hostKVSetFor(data(key), size(key), data(value), size(value), seconds, out.at())
	return out.failed("kv.set-for", 4)
}

// GetMany gives the values of several keys, in that order; nil where there is none.
func (kv) GetMany(keys ...string) ([]*string, error) {
	var out area
	spans := spansOf(keys)
	hostKVGetMany(unsafe.Pointer(&spans[0]), uint32(len(keys)), out.at())
	runtime.KeepAlive(keys)
	if err := out.failed("kv.get-many", 4); err != nil {
		return nil, err
	}
	values := make([]*string, out.u32(8))
	for i := range values {
		option := (*struct {
			some uint8
			text span
		})(pointer(out.u32(4) + uint32(i)*12))
		if option.some != 0 {
			value := Text(option.text.at, option.text.size)
			values[i] = &value
		}
	}
	return values, nil
}

// SetMany writes several values: all of them, or none if one is refused.
func (kv) SetMany(values map[string]string) error {
	var out area
	texts := make([]string, 0, 2*len(values))
	for key, value := range values {
		texts = append(texts, key, value)
	}
	spans := spansOf(texts)
	hostKVSetMany(unsafe.Pointer(&spans[0]), uint32(len(values)), out.at())
	runtime.KeepAlive(texts)
	return out.failed("kv.set-many", 4)
}

// ---------------------------------------------------------------- http

//go:wasmimport keelstone:plugin/http@1.1.0 send
func hostHTTP(method unsafe.Pointer, methodSize uint32, url unsafe.Pointer, urlSize uint32, headers unsafe.Pointer, headerCount uint32, hasBody uint32, body unsafe.Pointer, bodySize uint32, out unsafe.Pointer)

// Header is one header of a request or a response.
type Header struct{ Name, Value string }

// Request is an outgoing request; without Method it is a GET.
type Request struct {
	Method, URL string
	Headers     []Header
	Body        *string
}

// Response is an answer, whatever its status.
type Response struct {
	Status  int
	Headers []Header
	Body    string
}

// OK is true for the statuses 200 to 299.
func (r Response) OK() bool { return r.Status >= 200 && r.Status < 300 }

// Header is the first header of that name, in any case; false if there is none.
func (r Response) Header(name string) (string, bool) {
	for _, one := range r.Headers {
		if strings.EqualFold(one.Name, name) {
			return one.Value, true
		}
	}
	return "", false
}

// Send sends a request to one of the hosts in the manifest.
func (http) Send(request Request) (Response, error) {
	var out area
	method, body, hasBody := request.Method, "", uint32(0)
	if method == "" {
		method = "GET"
	}
	if request.Body != nil {
		body, hasBody = *request.Body, 1
	}
	texts := make([]string, 0, 2*len(request.Headers))
	for _, one := range request.Headers {
		texts = append(texts, one.Name, one.Value)
	}
	spans := spansOf(texts)
	hostHTTP(data(method), size(method), data(request.URL), size(request.URL), unsafe.Pointer(&spans[0]), uint32(len(request.Headers)), hasBody, data(body), size(body), out.at())
	runtime.KeepAlive(texts)
	if err := out.failed("http.send", 4); err != nil {
		return Response{}, err
	}
	response := Response{Status: int(out.u32(4) & 0xffff), Body: out.text(16)}
	for i := range out.u32(12) {
		pair := (*[2]span)(pointer(out.u32(8) + i*16))
		response.Headers = append(response.Headers, Header{Text(pair[0].at, pair[0].size), Text(pair[1].at, pair[1].size)})
	}
	return response, nil
}

// Post sends value as JSON.
func (h http) Post(url string, value any, headers ...Header) (Response, error) {
	raw, err := json.Marshal(value)
	if err != nil {
		return Response{}, err
	}
	body := string(raw)
	headers = append([]Header{{"content-type", "application/json"}}, headers...)
	return h.Send(Request{Method: "POST", URL: url, Headers: headers, Body: &body})
}

// ---------------------------------------------------------------- events

//go:wasmimport keelstone:plugin/events@1.1.0 emit
func hostEmit(kind unsafe.Pointer, kindSize uint32, data unsafe.Pointer, size uint32, out unsafe.Pointer)

// Emit emits one event of a type that the manifest declares; it is saved if the call succeeds.
func (events) Emit(eventType string, value any) error {
	var out area
	raw, err := json.Marshal(value)
	if err != nil {
		return err
	}
	text := string(raw)
	hostEmit(data(eventType), size(eventType), data(text), size(text), out.at())
	return out.failed("events.emit", 4)
}

// ---------------------------------------------------------------- secrets

//go:wasmimport keelstone:plugin/secrets@1.1.0 placeholder
func hostPlaceholder(name unsafe.Pointer, size uint32, out unsafe.Pointer)

// Placeholder is text that stands for a secret in this call's requests: the host puts the value in its place.
func (secrets) Placeholder(name string) (string, error) {
	var out area
	hostPlaceholder(data(name), size(name), out.at())
	if err := out.failed("secrets.placeholder", 4); err != nil {
		return "", err
	}
	return out.text(4), nil
}

// ---------------------------------------------------------------- ai

//go:wasmimport keelstone:plugin/ai@1.1.0 complete
func hostComplete(model unsafe.Pointer, modelSize uint32, hasSystem uint32, system unsafe.Pointer, systemSize uint32, text unsafe.Pointer, textSize uint32, maxTokens uint32, out unsafe.Pointer)

// Prompt is a question to a language model; System may be nil.
type Prompt struct {
	Model     string
	System    *string
	Text      string
	MaxTokens uint32
}

// Completion is a model's answer; Tokens counts both ways.
type Completion struct {
	Text, Model string
	Tokens      uint32
}

// Complete is what the model answers.
func (ai) Complete(prompt Prompt) (Completion, error) {
	var out area
	some, system := uint32(0), ""
	if prompt.System != nil {
		some, system = 1, *prompt.System
	}
	hostComplete(data(prompt.Model), size(prompt.Model), some, data(system), size(system), data(prompt.Text), size(prompt.Text), prompt.MaxTokens, out.at())
	if err := out.failed("ai.complete", 4); err != nil {
		return Completion{}, err
	}
	return Completion{out.text(4), out.text(12), out.u32(20)}, nil
}

// ---------------------------------------------------------------- notify

//go:wasmimport keelstone:plugin/notify@1.1.0 send
func hostNotify(channel unsafe.Pointer, channelSize uint32, recipient unsafe.Pointer, recipientSize uint32, subject unsafe.Pointer, subjectSize uint32, body unsafe.Pointer, bodySize uint32, out unsafe.Pointer)

// Notice is a message to a person, over a channel that the tenant has set up.
type Notice struct{ Channel, Recipient, Subject, Body string }

// Send gives the message's id, once it is accepted for delivery.
func (notify) Send(notice Notice) (string, error) {
	var out area
	hostNotify(data(notice.Channel), size(notice.Channel), data(notice.Recipient), size(notice.Recipient), data(notice.Subject), size(notice.Subject), data(notice.Body), size(notice.Body), out.at())
	if err := out.failed("notify.send", 4); err != nil {
		return "", err
	}
	return out.text(4), nil
}

// ---------------------------------------------------------------- clock and random

//go:wasmimport keelstone:plugin/clock@1.1.0 now
func hostNow(out unsafe.Pointer)

//go:wasmimport keelstone:plugin/clock@1.1.0 monotonic
func hostMonotonic(out unsafe.Pointer)

//go:wasmimport keelstone:plugin/random@1.1.0 number
func hostRandom(out unsafe.Pointer)

//go:wasmimport keelstone:plugin/random@1.1.0 hex
func hostRandomHex(bytes uint32, out unsafe.Pointer)

// Now is in milliseconds since 1970-01-01T00:00Z.
func (clock) Now() (uint64, error) {
	var out area
	hostNow(out.at())
	return out[1], out.failed("clock.now", 8)
}

// Monotonic is in nanoseconds from some moment on, which never go back: for measuring.
func (clock) Monotonic() (uint64, error) {
	var out area
	hostMonotonic(out.at())
	return out[1], out.failed("clock.monotonic", 8)
}

// Number is unpredictable, fit for keys.
func (random) Number() (uint64, error) {
	var out area
	hostRandom(out.at())
	return out[1], out.failed("random.number", 8)
}

// Hex is so many random bytes (1 to 1024) as hexadecimal text.
func (random) Hex(bytes uint32) (string, error) {
	var out area
	hostRandomHex(bytes, out.at())
	if err := out.failed("random.hex", 4); err != nil {
		return "", err
	}
	return out.text(4), nil
}

// ---------------------------------------------------------------- services

//go:wasmimport keelstone:plugin/services@1.1.0 call
func hostService(plugin unsafe.Pointer, pluginSize uint32, method unsafe.Pointer, methodSize uint32, payload unsafe.Pointer, size uint32, out unsafe.Pointer)

// Call calls a method of another plugin's, in this call's tenant, and reads the answer into answer.
func (services) Call(plugin, method string, payload, answer any) error {
	var out area
	raw, err := json.Marshal(payload)
	if err != nil {
		return err
	}
	text := string(raw)
	hostService(data(plugin), size(plugin), data(method), size(method), data(text), size(text), out.at())
	if err := out.failed("services.call", 4); err != nil {
		return err
	}
	return Decode(out.text(4), answer)
}
