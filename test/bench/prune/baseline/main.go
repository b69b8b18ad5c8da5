// Command baseline is the pruner that berth is measured against: the shortest one
// that does the job in Go, with no safety at all. It walks a folder, and removes by
// path each folder named …/containers/<ID> whose ID is not in a file with the IDs
// that live, one in a line, as `docker ps --quiet --no-trunc` prints them.
//
//	baseline -root /tmp/tree -alive alive.txt         # remove
//	baseline -root /tmp/tree -alive alive.txt -scan   # only look
//
// Never run it on a host: an empty file means that nothing lives, and os.RemoveAll
// goes through mounts. It is kept as it is, so that what is measured against it
// stays comparable; prune.rb beside it does the same in Ruby.
package main

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	root := flag.String("root", "", "folder to walk")
	alive := flag.String("alive", "", "file with the IDs that live")
	scan := flag.Bool("scan", false, "only look")
	flag.Parse()
	if err := prune(*root, *alive, *scan); err != nil {
		fmt.Fprintln(os.Stderr, "baseline:", err)
		os.Exit(1)
	}
}

func prune(root, alive string, scan bool) error {
	text, err := os.ReadFile(alive)
	if err != nil {
		return err
	}
	lives := make(map[string]bool)
	for _, id := range strings.Fields(string(text)) {
		lives[id] = true
	}
	var dead []string
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && filepath.Base(filepath.Dir(path)) == "containers" {
			if !lives[d.Name()] {
				dead = append(dead, path)
			}
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !scan {
		for _, path := range dead {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	fmt.Println(len(dead))
	return nil
}
