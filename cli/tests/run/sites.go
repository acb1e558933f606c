// Goroutines that call often, with a collector that interrupts them by signals.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

func work(worker int) int {
	zero, _ := os.Open("/dev/zero")
	null, _ := os.OpenFile("/dev/null", os.O_WRONLY, 0)
	defer zero.Close()
	defer null.Close()
	sum := 0
	for i := 0; i < 20000; i++ {
		buffer := make([]byte, 64)
		buffer[0] = 1
		n, err := zero.Read(buffer)
		if err != nil || n != 64 || buffer[0] != 0 {
			fmt.Println("read", n, err)
		}
		n, err = null.Write(buffer)
		if err != nil || n != 64 {
			fmt.Println("write", n, err)
		}
		if syscall.Getppid() != os.Getppid() {
			fmt.Println("parent")
		}
		sum += n
	}
	return sum + worker
}

func main() {
	var all sync.WaitGroup
	sums := make([]int, 8)
	stop := make(chan bool)
	go func() {
		ticker := time.NewTicker(time.Millisecond)
		for {
			select {
			case <-ticker.C:
				runtime.GC()
			case <-stop:
				return
			}
		}
	}()
	for worker := range sums {
		all.Add(1)
		go func(worker int) {
			defer all.Done()
			sums[worker] = work(worker)
		}(worker)
	}
	for i := 0; i < 10; i++ {
		out, err := exec.Command("/bin/echo", "child").Output()
		if err != nil || string(out) != "child\n" {
			fmt.Println("exec", string(out), err)
		}
	}
	all.Wait()
	stop <- true
	fmt.Println(sums)
}
