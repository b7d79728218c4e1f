package openssl

import (
	"bytes"
	"debug/elf"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// An image is the ELF file of a library, mapped into memory. Its sections are parts of the mapping
// and not copies: copies would take a fifth of an idle worker's memory.
type image struct {
	*elf.File
	mem []byte
}

// openImage maps the ELF file at path. The caller must close the image.
func openImage(path string) (*image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > math.MaxInt32 {
		return nil, unix.EFBIG
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	parsed, err := elf.NewFile(bytes.NewReader(mem))
	if err != nil {
		_ = unix.Munmap(mem)
		return nil, err
	}
	return &image{parsed, mem}, nil
}

func (i *image) close() { _ = unix.Munmap(i.mem) }

// section returns the content of the section with this name, or nil if there is none. The content
// is valid until close.
func (i *image) section(name string) []byte {
	s := i.Section(name)
	size := uint64(len(i.mem))
	if s == nil || s.Type == elf.SHT_NOBITS || s.Offset > size || s.FileSize > size-s.Offset {
		return nil
	}
	return i.mem[s.Offset : s.Offset+s.FileSize]
}

// dynamic returns the strings that the dynamic section has for a tag, such as DT_NEEDED.
func (i *image) dynamic(tag elf.DynTag) (list []string) {
	offsets, _ := i.DynValue(tag)
	names := i.section(".dynstr")
	for _, at := range offsets {
		if at < uint64(len(names)) {
			name, _, _ := bytes.Cut(names[at:], []byte{0})
			list = append(list, string(name))
		}
	}
	return list
}
