// A Pub/Sub emulator on 127.0.0.1: Google's own in-memory one, and its counts over HTTP.
//
// It prints one line, {"pubsub": "HOST:PORT", "counts": "HOST:PORT"}, when it is ready, and ends when its standard
// input does.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"cloud.google.com/go/pubsub/v2/pstest"
)

// counts is about one message: how often it was delivered, and acknowledged.
type counts struct {
	Deliveries int `json:"deliveries"`
	Acks       int `json:"acks"`
}

func main() {
	server := pstest.NewServerWithAddress("127.0.0.1:0")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go http.Serve(listener, http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) {
		found := map[string]counts{}
		for _, message := range server.Messages() {
			found[message.ID] = counts{message.Deliveries, message.Acks}
		}
		json.NewEncoder(answer).Encode(found)
	}))
	fmt.Printf("{\"pubsub\": %q, \"counts\": %q}\n", server.Addr, listener.Addr())
	io.Copy(io.Discard, os.Stdin)
}
