// Google's own in-memory Bigtable. It listens on a free port of 127.0.0.1, says so on one line of standard output, and
// ends with its standard input.
package main

import (
	"fmt"
	"io"
	"log"
	"os"

	"cloud.google.com/go/bigtable/bttest"
	"google.golang.org/grpc"
)

const mostBytes = 256 << 20

func main() {
	server, err := bttest.NewServer("127.0.0.1:0", grpc.MaxRecvMsgSize(mostBytes), grpc.MaxSendMsgSize(mostBytes))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(server.Addr)
	io.Copy(io.Discard, os.Stdin)
}
