// Etcdload loads an etcd with etcd's own client, closed loop, and prints one line of JSON: what bench/coordload.py does
// for coord, with the same options. It needs Debian's golang-go and golang-etcd-server-dev, and is built without
// modules:
//
//	GO111MODULE=off GOPATH=/usr/share/gocode go build -o etcdload ./bench/etcdload
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.uber.org/zap"
)

var (
	endpoints  = flag.String("endpoints", "127.0.0.1:2379", "host:port,...; connections are spread over them")
	mode       = flag.String("mode", "put", "fill, put, get, sget, range, put-many, txn, mixed, lock, handoff, watch or failover")
	conns      = flag.Int("conns", 1, "connections")
	clients    = flag.Int("clients", 1, "callers, contenders or watchers, which share the connections")
	seconds    = flag.Float64("seconds", 5, "how long to run")
	total      = flag.Int("total", 5000, "puts of watch")
	keys       = flag.Int("keys", 100000, "size of the key space")
	valueBytes = flag.Int("value-bytes", 256, "size of a value")
)

const dialTimeout = 5 * time.Second

// load is what one caller has seen; nobody else writes to it.
type load struct {
	tookMs []float64
	errors int
}

func (l *load) done(began time.Time, err error) {
	if err != nil {
		l.errors++
		return
	}
	l.tookMs = append(l.tookMs, float64(time.Since(began).Nanoseconds())/1e6)
}

// report is the line that is printed; coordload.py prints the same.
type report struct {
	Operations int     `json:"operations"`
	Seconds    float64 `json:"seconds"`
	OpsPerS    float64 `json:"ops_per_s"`
	P50Ms      float64 `json:"p50_ms"`
	P99Ms      float64 `json:"p99_ms"`
	MaxMs      float64 `json:"max_ms"`
	Errors     int     `json:"errors"`
	CPUSeconds float64 `json:"cpu_s"`
	GapMs      float64 `json:"gap_ms"`
}

// connect opens connections, each to one endpoint, in turn.
func connect(count int) []*clientv3.Client {
	nodes := strings.Split(*endpoints, ",")
	opened := make([]*clientv3.Client, count)
	for i := range opened {
		opened[i] = open(nodes[i%len(nodes)])
	}
	return opened
}

func open(nodes ...string) *clientv3.Client {
	// It would tell of each retry while a leader dies, a thousand times, and that takes time from what is measured.
	logging := zap.NewProductionConfig()
	logging.Level = zap.NewAtomicLevelAt(zap.ErrorLevel)
	config := clientv3.Config{Endpoints: nodes, DialTimeout: dialTimeout, LogConfig: &logging}
	client, err := clientv3.New(config)
	check(err)
	return client
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "etcdload:", err)
		os.Exit(1)
	}
}

// cost is how long a load took, and the CPU seconds spent before it: to start and to connect is none of its cost.
type cost struct {
	took   time.Duration
	before float64
}

// each runs callers at the same time and returns what they have seen, and what it took.
func each(count int, run func(number int, own *load)) ([]load, cost) {
	loads := make([]load, count)
	var group sync.WaitGroup
	spent, began := cpuSeconds(), time.Now()
	for number := range loads {
		group.Add(1)
		go func(number int) {
			defer group.Done()
			run(number, &loads[number])
		}(number)
	}
	group.Wait()
	return loads, cost{time.Since(began), spent}
}

func summary(loads []load, spent cost) report {
	var all []float64
	errors := 0
	for _, one := range loads {
		all = append(all, one.tookMs...)
		errors += one.errors
	}
	result := report{Operations: len(all), Seconds: spent.took.Seconds(), Errors: errors}
	result.CPUSeconds = cpuSeconds() - spent.before
	if len(all) > 0 {
		sort.Float64s(all)
		result.OpsPerS = float64(len(all)) / result.Seconds
		result.P50Ms, result.P99Ms = all[len(all)/2], all[len(all)*99/100]
		result.MaxMs = all[len(all)-1]
	}
	return result
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func main() {
	flag.Parse()
	modes := map[string]func(time.Duration) report{
		"fill": fill, "put": puts, "get": gets, "sget": localGets, "range": ranges, "put-many": manyPuts, "txn": txns,
		"mixed": mixed, "lock": lock, "handoff": handoff, "watch": watch, "failover": failover,
	}
	run, known := modes[*mode]
	if !known {
		check(fmt.Errorf("no such mode: %s", *mode))
	}
	result := run(time.Duration(*seconds * float64(time.Second)))
	line, err := json.Marshal(result)
	check(err)
	fmt.Println(string(line))
}
