// A registry as the OCI distribution specification has it, on a free port of this machine, until its input ends.
// Its address is its first line of output. With -plain it lists no referrers, as registries before version 1.1.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	plain := len(os.Args) > 1 && os.Args[1] == "-plain"
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	quiet := registry.Logger(log.New(io.Discard, "", 0))
	go func() { log.Fatal(http.Serve(listener, registry.New(quiet, registry.WithReferrersSupport(!plain)))) }()
	_, _ = io.Copy(io.Discard, os.Stdin)
}
