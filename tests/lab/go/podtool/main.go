// Podtool is what containers of the lab run where no image of the project is needed: the pod sandbox's pause process, and
// one small act a word for tests.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	words := os.Args[1:]
	if len(words) == 0 {
		words = []string{"pause"}
	}
	if err := act(words[0], strings.Join(words[1:], " ")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func act(word, value string) error {
	switch word {
	case "pause":
		wait(0)
	case "sleep":
		seconds, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return err
		}
		wait(time.Duration(seconds * float64(time.Second)))
	case "exit":
		code, err := strconv.Atoi(value)
		if err != nil {
			return err
		}
		os.Exit(code)
	case "say":
		fmt.Println(value)
	case "lookup":
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		addresses, err := net.DefaultResolver.LookupHost(ctx, value)
		if err != nil {
			return err
		}
		fmt.Println(strings.Join(addresses, "\n"))
	case "await":
		return await(value)
	case "get":
		client := http.Client{Timeout: 20 * time.Second}
		answer, err := client.Get(value)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		fmt.Println(answer.StatusCode)
		_, err = io.Copy(os.Stdout, answer.Body)
		return err
	case "serve":
		return http.ListenAndServe(":"+value, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(w, "ok")
		}))
	case "fill":
		megabytes, err := strconv.Atoi(value)
		if err != nil {
			return err
		}
		fill(megabytes)
	default:
		return fmt.Errorf("podtool knows pause, sleep, exit, say, lookup, await, get, serve and fill, not %q", word)
	}
	return nil
}

// await returns when the name has an address: a Pod's name in DNS comes a little after the Pod.
func await(name string) error {
	var err error
	for range 900 {
		if _, err = net.LookupHost(name); err == nil {
			return nil
		}
		time.Sleep(time.Second)
	}
	return err
}

// wait returns after the duration (0: never), or at once when the container is asked to stop. As process 1 of a sandbox it
// also collects orphans: ignoring SIGCHLD lets the kernel do that.
func wait(long time.Duration) {
	signal.Ignore(syscall.SIGCHLD)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	var end <-chan time.Time
	if long > 0 {
		end = time.After(long)
	}
	select {
	case <-stop:
	case <-end:
	}
}

// fill takes this much memory, written, and keeps it.
func fill(megabytes int) {
	kept := make([][]byte, 0, megabytes)
	for range megabytes {
		block := make([]byte, 1<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		kept = append(kept, block)
	}
	fmt.Println(len(kept), "MiB taken")
	wait(0)
}
