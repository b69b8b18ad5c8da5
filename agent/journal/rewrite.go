package journal

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// renew writes the durable state into a new file: the first one, or one in the
// place of a file that is not trusted.
func (j *Journal) renew() error {
	if j.file == nil {
		frame := appendFrame(nil, nil)
		return j.replace(frame, len(frame))
	}
	body := make([]byte, j.end-j.body)
	if _, err := j.file.ReadAt(body, j.body); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	// What cannot be read back soundly must not replace what is on the disk.
	if d, err := decode(append(encodeHeader(j.header), body...)); err != nil || d.torn {
		return fmt.Errorf("read back: %w", errors.Join(err, errChecksum))
	}
	return j.replace(body, int(j.base-j.body))
}

// replace makes a new file with this body, of which the first n bytes are the
// checkpoint's frame, and puts it into the place of the old one.
func (j *Journal) replace(body []byte, n int) error {
	head := encodeHeader(j.header)
	tmp := j.path + ".new"
	f, err := j.writeNew(tmp, append(slices.Clone(head), body...))
	if err != nil {
		return err
	}
	if err := j.disk.rename(tmp, j.path); err != nil {
		f.Close()
		_ = j.disk.remove(tmp)
		return err
	}
	if j.file != nil {
		j.file.Close()
	}
	j.file = f
	j.body = int64(len(head))
	j.base = j.body + int64(n)
	j.end = j.body + int64(len(body))
	// Until the directory is synced a crash may bring the old file back, without
	// anything that would be appended to the new one.
	err = j.disk.syncDir(filepath.Dir(j.path))
	j.distrusted = err != nil
	return err
}

// writeNew creates a synced file, or leaves none, so that a full disk gets the
// room back.
func (j *Journal) writeNew(path string, data []byte) (file, error) {
	// A crash may have left one, on which a sync may have failed: start afresh.
	_ = j.disk.remove(path)
	f, err := j.disk.create(path)
	if err != nil {
		return nil, err
	}
	if _, err = f.WriteAt(data, 0); err == nil {
		err = f.Sync()
	}
	if err != nil {
		f.Close()
		_ = j.disk.remove(path)
		return nil, err
	}
	return f, nil
}

// setAside gives the file the name "….corrupt-<n>", with move (rename or link),
// and removes the oldest such files.
func (j *Journal) setAside(move func(from, to string) error) (string, error) {
	dir, prefix := filepath.Dir(j.path), filepath.Base(j.path)+".corrupt-"
	names, err := j.disk.list(dir)
	if err != nil {
		return "", fmt.Errorf("set unusable state aside: %w", err)
	}
	var numbers []int
	for _, name := range names {
		if s, ok := strings.CutPrefix(name, prefix); ok {
			if n, err := strconv.Atoi(s); err == nil && n > 0 && s == strconv.Itoa(n) {
				numbers = append(numbers, n)
			}
		}
	}
	slices.Sort(numbers)
	next := 1
	if len(numbers) > 0 {
		next = numbers[len(numbers)-1] + 1
	}
	aside := filepath.Join(dir, prefix+strconv.Itoa(next))
	if err := move(j.path, aside); err != nil {
		return "", fmt.Errorf("set unusable state aside: %w", err)
	}
	for _, n := range numbers[:max(0, len(numbers)-maxAside+1)] {
		_ = j.disk.remove(filepath.Join(dir, prefix+strconv.Itoa(n)))
	}
	return aside, nil
}
