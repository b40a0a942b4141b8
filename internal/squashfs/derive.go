package squashfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"
)

// recompressed is the number of blocks of which one is compressed again, to check that
// an image was packed as it says.
const recompressed = 32

// deriveTable makes the table of an image that has none beside it, by decoding all
// of its blocks: slower than reading a table, several times as fast as compressing
// them. The image has to say that the compressor packed it.
func deriveTable(ctx context.Context, image string, spec encoderSpec, workers int) (*blockTable, error) {
	m, err := Open(image)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	said, err := m.Compressor()
	if err != nil {
		return nil, err
	}
	d := &deriving{m: m, spec: spec, table: &blockTable{compressor: said, key: newTableKey(), blocks: map[sum]storedBlock{}}}
	if said != spec.String() || int(m.sb.BlockSize) != spec.blockSize {
		return d.table, nil
	}
	if d.hash, err = newHasher(d.table.key); err != nil {
		return nil, err
	}
	blocks, err := m.storedBlocks(ctx)
	if err != nil {
		return nil, err
	}
	g, ctx := errgroup.WithContext(ctx)
	for w := range workers {
		g.Go(func() error { return d.work(ctx, blocks, w, workers) })
	}
	return d.table, g.Wait()
}

// deriving is the making of a table.
type deriving struct {
	m    *Image
	spec encoderSpec
	hash hasher

	mu    sync.Mutex
	table *blockTable
}

// work enters each so-many-th block.
func (d *deriving) work(ctx context.Context, blocks []storedBlock, first, step int) error {
	e, err := d.spec.open()
	if err != nil {
		return err
	}
	defer e.close()
	stored, content := make([]byte, d.spec.blockSize), make([]byte, d.spec.blockSize)
	for i := first; i < len(blocks); i += step {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b := blocks[i]
		stored := stored[:min(int(b.word&^dataRaw), len(stored))]
		if err := d.m.readAt(stored, int64(b.at)); err != nil {
			return err
		}
		n, err := d.m.readStored(b.at, b.word, content)
		if err != nil {
			return err
		}
		if i/step%recompressed == 0 && b.word&dataRaw == 0 {
			if err := again(e, stored, content[:n]); err != nil {
				return err
			}
		}
		b.sum = d.hash.sum(stored)
		d.enter(d.hash.sum(content[:n]), b)
	}
	return nil
}

func again(e encoder, stored, content []byte) error {
	packed, err := e.encode(nil, content)
	if err == nil && !bytes.Equal(packed, stored) {
		err = errors.New("it says what compressed it, and that gives other bytes")
	}
	if err != nil {
		return fmt.Errorf("compress a block of it again: %w", err)
	}
	return nil
}

func (d *deriving) enter(content sum, b storedBlock) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.table.blocks[content] = b
}
