package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ReadDir reads the main file, unless main is "", and then all of conf.d/*.yaml
// in the order of their names, unless confd is "" or does not exist.
//
// Every other entry of conf.d is an error, because someone may count on it:
// "extra.yml", "extra.conf", a folder. Only leftovers of package managers and
// editors, hidden files and README do not stop a daemon from starting; they
// come back with File.Skipped set.
//
// ReadDir returns all files that it could read, and an error that joins what
// went wrong with the others. A missing main file is an error that wraps
// fs.ErrNotExist.
func ReadDir(main, confd string) ([]File, error) {
	var files []File
	var errs []error
	read := func(path string) {
		data, err := readConfig(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("read config: %w", err))
			return
		}
		files = append(files, File{Name: path, Data: data})
	}
	if main != "" {
		read(main)
	}
	entries, err := listDir(confd)
	if err != nil {
		errs = append(errs, fmt.Errorf("read config: %w", err))
	}
	for _, e := range entries {
		path := filepath.Join(confd, e.Name())
		reason := leftover(e.Name())
		switch {
		case reason != "":
			files = append(files, File{Name: path, Skipped: reason})
		case e.IsDir():
			errs = append(errs, fmt.Errorf("read config: %s is a folder: move its files up, or the folder away", path))
		case filepath.Ext(e.Name()) != ".yaml":
			errs = append(errs, fmt.Errorf("read config: %s does not end in .yaml: rename it so that it is read, or move it away", path))
		default:
			read(path)
		}
	}
	return files, errors.Join(errs...)
}

// listDir lists a folder by name; one that does not exist is empty.
func listDir(dir string) ([]fs.DirEntry, error) {
	if dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}

// leftover says why a file of conf.d is not meant to be read, or "".
func leftover(name string) string {
	base, _, _ := strings.Cut(name, ".")
	switch {
	case strings.HasPrefix(name, "."):
		return "it is hidden"
	case strings.EqualFold(base, "README") && filepath.Ext(name) != ".yaml":
		return "it is for people"
	case strings.HasSuffix(name, "~"), strings.HasPrefix(name, "#") && strings.HasSuffix(name, "#"):
		return "it is an editor's backup"
	}
	ext := filepath.Ext(name)
	switch {
	case strings.HasPrefix(ext, ".dpkg-"), strings.HasPrefix(ext, ".ucf-"), ext == ".rpmnew", ext == ".rpmsave", ext == ".rpmorig":
		return "the package manager left it"
	case ext == ".bak", ext == ".orig", ext == ".old", ext == ".disabled":
		return "its name says that it is out of use"
	}
	return ""
}

// readConfig reads a regular file of bounded size: a little more than Load
// accepts, which then says so.
func readConfig(path string) ([]byte, error) {
	// Non-blocking, so that a named pipe does not hang the daemon.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, 2*maxBytes))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return data, nil
}
