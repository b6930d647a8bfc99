package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
)

const (
	lockTTL      = 30
	watchPrefix  = "bench/watch/"
	watchPutters = 10
	watchGiveUp  = 60 * time.Second
)

func session(client *clientv3.Client) *concurrency.Session {
	opened, err := concurrency.NewSession(client, concurrency.WithTTL(lockTTL))
	check(err)
	return opened
}

func lockOnce(mutex *concurrency.Mutex) error {
	if err := mutex.Lock(context.Background()); err != nil {
		return err
	}
	return mutex.Unlock(context.Background())
}

// lock locks and unlocks, again and again, with nobody else there.
func lock(length time.Duration) report {
	mutex := concurrency.NewMutex(session(connect(1)[0]), "bench/lock")
	check(lockOnce(mutex))
	ends := time.Now().Add(length)
	return summary(each(1, func(_ int, own *load) {
		for began := time.Now(); began.Before(ends); began = time.Now() {
			own.done(began, lockOnce(mutex))
		}
	}))
}

// handoff has contenders of one connection, with a session each, take a lock in turn.
func handoff(length time.Duration) report {
	client := connect(1)[0]
	sessions := make([]*concurrency.Session, *clients)
	for i := range sessions {
		sessions[i] = session(client)
	}
	last := time.Now() // only who has the lock looks at it
	ends := last.Add(length)
	return summary(each(*clients, func(number int, own *load) {
		mutex := concurrency.NewMutex(sessions[number], "bench/handoff")
		for time.Now().Before(ends) {
			check(mutex.Lock(context.Background()))
			own.done(last, nil)
			last = time.Now()
			check(mutex.Unlock(context.Background()))
		}
	}))
}

// watch has watchers of one connection see puts of the same connection; an operation is an event that one of them sees.
func watch(time.Duration) report {
	client := connect(1)[0]
	sent := make([]int64, *total)
	var ready, seen sync.WaitGroup
	var first load
	for number := 0; number < *clients; number++ {
		ready.Add(1)
		seen.Add(1)
		var own *load
		if number == 0 {
			own = &first
		}
		events := client.Watch(context.Background(), watchPrefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		go follow(events, sent, own, &ready, &seen)
	}
	ready.Wait()
	time.AfterFunc(watchGiveUp, func() { check(fmt.Errorf("not all events were seen after %s", watchGiveUp)) })
	next := int64(-1)
	_, spent := each(watchPutters, func(int, *load) {
		for at := atomic.AddInt64(&next, 1); at < int64(*total); at = atomic.AddInt64(&next, 1) {
			atomic.StoreInt64(&sent[at], time.Now().UnixNano())
			_, err := client.Put(context.Background(), watchPrefix+strconv.FormatInt(at, 10), "v")
			check(err)
		}
	})
	began := time.Now()
	seen.Wait()
	spent.took += time.Since(began)
	result := summary([]load{first}, spent)
	result.Operations = *total * *clients
	result.OpsPerS = float64(result.Operations) / result.Seconds
	return result
}

// follow counts events until it has seen all; one of the watchers notes how old they are, for all.
func follow(events clientv3.WatchChan, sent []int64, own *load, ready, seen *sync.WaitGroup) {
	defer seen.Done()
	count := 0
	for batch := range events {
		check(batch.Err())
		if batch.Created {
			ready.Done()
			continue
		}
		count += len(batch.Events)
		for _, event := range batch.Events {
			if own == nil {
				break
			}
			at, err := strconv.Atoi(string(event.Kv.Key[len(watchPrefix):]))
			check(err)
			own.done(time.Unix(0, atomic.LoadInt64(&sent[at])), nil)
		}
		if count == len(sent) {
			return
		}
	}
}
