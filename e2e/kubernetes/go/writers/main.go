// Command writers is a fleet of stock etcd clients that write without a pause and tell how each write ended.
//
// Half of its clients know the Service of the cluster and nothing else; the others know members, by the addresses that come in
// on standard input: a line each time they change, with commas between. The end of the input is the end of the load. Each write
// has a key of its own, is tried once, and is told on a line of JSON when it has ended. Nothing is retried here: what the client
// library does by itself is what every user of it gets.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// ended is one line of the output; times are nanoseconds since the epoch.
type ended struct {
	Key      string `json:"key"`
	Value    string `json:"value"`
	Revision int64  `json:"revision,omitempty"`
	Error    string `json:"error,omitempty"`
	Began    int64  `json:"began"`
	Ended    int64  `json:"ended"`
}

var (
	service     = flag.String("service", "", "host and port of the Service")
	connections = flag.Int("connections", 8, "clients; every second one uses the Service")
	lanes       = flag.Int("lanes", 16, "writes that one client may have in flight")
	period      = flag.Duration("period", 200*time.Millisecond, "between two writes of one lane")
	timeout     = flag.Duration("timeout", 5*time.Second, "the longest that one write may take")
	prefix      = flag.String("prefix", "load/", "the beginning of every key")
)

func main() {
	flag.Parse()
	input := bufio.NewScanner(os.Stdin)
	if !input.Scan() {
		fail(fmt.Errorf("the first line of the input must name the members"))
	}
	members := strings.Split(input.Text(), ",")
	var clients []*clientv3.Client
	for number := range *connections {
		endpoints := []string{*service}
		if number%2 == 1 {
			endpoints = rotated(members, number)
		}
		client, err := clientv3.New(clientv3.Config{
			Endpoints: endpoints,
			// What grpc-go allows at the least. A member that is gone without a word is noticed by nothing else.
			DialKeepAliveTime:    10 * time.Second,
			DialKeepAliveTimeout: 3 * time.Second,
			Logger:               zap.NewNop(),
		})
		if err != nil {
			fail(err)
		}
		clients = append(clients, client)
	}

	told := make(chan ended, 1024)
	stop := make(chan struct{})
	var writing sync.WaitGroup
	for number, client := range clients {
		for lane := range *lanes {
			writing.Go(func() { write(client, fmt.Sprintf("%s%d/%d/", *prefix, number, lane), stop, told) })
		}
	}
	go func() {
		for input.Scan() {
			for number, client := range clients {
				if number%2 == 1 {
					client.SetEndpoints(rotated(strings.Split(input.Text(), ","), number)...)
				}
			}
		}
		close(stop)
		writing.Wait()
		close(told)
	}()

	output := bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(output)
	for line := range told {
		if err := encoder.Encode(line); err != nil {
			fail(err)
		}
	}
	if err := output.Flush(); err != nil {
		fail(err)
	}
}

// rotated lets each client begin at another member.
func rotated(members []string, by int) []string {
	by %= len(members)
	return append(append([]string{}, members[by:]...), members[:by]...)
}

func write(client *clientv3.Client, prefix string, stop <-chan struct{}, told chan<- ended) {
	due := time.Now()
	for number := 1; ; number++ {
		// After an election what was due meanwhile is written at once, as waiting users would.
		select {
		case <-stop:
			return
		case <-time.After(time.Until(due)):
		}
		due = due.Add(*period)
		line := ended{Key: fmt.Sprintf("%s%d", prefix, number)}
		line.Value = "value of " + line.Key
		ctx, cancel := context.WithTimeout(context.Background(), *timeout)
		line.Began = time.Now().UnixNano()
		answer, err := client.Put(ctx, line.Key, line.Value)
		line.Ended = time.Now().UnixNano()
		cancel()
		if err != nil {
			line.Error = err.Error()
		} else {
			line.Revision = answer.Header.Revision
		}
		told <- line
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "writers:", err)
	os.Exit(1)
}
