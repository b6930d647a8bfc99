package main

import (
	"context"
	"fmt"
	"math/rand"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/clientv3"
)

// giveUp is how long a write may take while the leader dies. Etcd answers one that the old leader took to its grave
// only after seconds, and who waits for that would blame etcd for all of them.
const giveUp = 300 * time.Millisecond

const (
	readyAfter = 100
	rangeKeys  = 10000
	batchPuts  = 100
)

func key(number int) string { return fmt.Sprintf("k%07d", number) }

func value() string { return strings.Repeat("v", *valueBytes) }

// fill puts every key once.
func fill(time.Duration) report {
	connections, content := connect(*conns), value()
	next := int64(-1)
	return summary(each(*clients, func(number int, own *load) {
		client := connections[number%len(connections)]
		for at := atomic.AddInt64(&next, 1); at < int64(*keys); at = atomic.AddInt64(&next, 1) {
			began := time.Now()
			_, err := client.Put(context.Background(), key(int(at)), content)
			check(err)
			own.done(began, err)
		}
	}))
}

func puts(length time.Duration) report {
	content := value()
	return closedLoop(length, func(client *clientv3.Client, key string) error {
		_, err := client.Put(context.Background(), key, content)
		return err
	})
}

func gets(length time.Duration) report {
	return closedLoop(length, func(client *clientv3.Client, key string) error {
		_, err := client.Get(context.Background(), key)
		return err
	})
}

// localGets may be answered by a node from what it has.
func localGets(length time.Duration) report {
	return closedLoop(length, func(client *clientv3.Client, key string) error {
		_, err := client.Get(context.Background(), key, clientv3.WithSerializable())
		return err
	})
}

// ranges reads many keys at a time.
func ranges(length time.Duration) report {
	options := []clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithLimit(rangeKeys)}
	return closedLoop(length, func(client *clientv3.Client, _ string) error {
		_, err := client.Get(context.Background(), key(0), options...)
		return err
	})
}

// manyPuts put many keys at the same time, as etcd's client can: by a goroutine each; a key is an operation.
func manyPuts(length time.Duration) report {
	content := value()
	return inBatches(closedLoop(length, func(client *clientv3.Client, first string) error {
		failed := make(chan error, batchPuts)
		for _, key := range batch(first) {
			go func(key string) {
				_, err := client.Put(context.Background(), key, content)
				failed <- err
			}(key)
		}
		var last error
		for i := 0; i < batchPuts; i++ {
			if err := <-failed; err != nil {
				last = err
			}
		}
		return last
	}))
}

// txns put many keys in a transaction; a key is an operation.
func txns(length time.Duration) report {
	content := value()
	return inBatches(closedLoop(length, func(client *clientv3.Client, first string) error {
		puts := make([]clientv3.Op, 0, batchPuts)
		for _, key := range batch(first) {
			puts = append(puts, clientv3.OpPut(key, content))
		}
		_, err := client.Txn(context.Background()).Then(puts...).Commit()
		return err
	}))
}

// batch returns keys that are put together.
func batch(first string) []string {
	keys := make([]string, batchPuts)
	for i := range keys {
		keys[i] = first[:len(first)-2] + fmt.Sprintf("%02d", i)
	}
	return keys
}

// inBatches counts the keys of a load that counted batches.
func inBatches(result report) report {
	result.Operations *= batchPuts
	result.OpsPerS *= batchPuts
	return result
}

// mixed are transactions of one operation, a get or a put in turn, as etcd's benchmark tool mixes them.
func mixed(length time.Duration) report {
	content := value()
	turn := uint64(0)
	return closedLoop(length, func(client *clientv3.Client, key string) error {
		operation := clientv3.OpGet(key)
		if atomic.AddUint64(&turn, 1)%2 == 0 {
			operation = clientv3.OpPut(key, content)
		}
		_, err := client.Txn(context.Background()).Then(operation).Commit()
		return err
	})
}

// closedLoop has callers send their next request when they have the answer to the last.
func closedLoop(length time.Duration, call func(*clientv3.Client, string) error) report {
	connections := connect(*conns)
	ends := time.Now().Add(length)
	return summary(each(*clients, func(number int, own *load) {
		client := connections[number%len(connections)]
		chance := rand.New(rand.NewSource(int64(number)))
		for began := time.Now(); began.Before(ends); began = time.Now() {
			own.done(began, call(client, key(chance.Intn(*keys))))
		}
	}))
}

// acknowledgements tells the longest time between two acknowledged writes.
type acknowledgements struct {
	mutex   sync.Mutex
	count   int
	last    time.Time
	longest time.Duration
}

func (a *acknowledgements) add() {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	now := time.Now()
	a.count++
	if a.count > readyAfter {
		if gap := now.Sub(a.last); gap > a.longest {
			a.longest = gap
		}
	}
	a.last = now
	if a.count == readyAfter {
		fmt.Println("ready")
	}
}

// failover puts over connections that know all nodes, while somebody else kills the leader.
func failover(length time.Duration) report {
	nodes := strings.Split(*endpoints, ",")
	connections := make([]*clientv3.Client, *conns)
	for i := range connections {
		connections[i] = open(nodes...)
	}
	content := value()
	var seen acknowledgements
	ends := time.Now().Add(length)
	result := summary(each(*clients, func(number int, own *load) {
		client := connections[number%len(connections)]
		for began := time.Now(); began.Before(ends); began = time.Now() {
			limited, cancel := context.WithTimeout(context.Background(), giveUp)
			_, err := client.Put(limited, key(number), content)
			cancel()
			own.done(began, err)
			if err == nil {
				seen.add()
			} else {
				time.Sleep(time.Millisecond)
			}
		}
	}))
	result.GapMs = float64(seen.longest.Nanoseconds()) / 1e6
	return result
}
