package squashfs

import (
	"context"
	"encoding/binary"
	"math"
	"math/bits"

	"uenv-ci.dev/internal/fault"
)

// writeImage writes everything: content, tables, superblock.
func (p *packer) writeImage(ctx context.Context) error {
	p.o.Events.Start(stage, "%s: %d files, %d directories", p.tree.path, p.tree.files, p.tree.directories())
	p.out.at += superblockSize
	if options := p.spec.options(); options != nil {
		head := binary.LittleEndian.AppendUint16(nil, uint16(len(options))|metaRaw)
		if err := p.out.write(append(head, options...)); err != nil {
			return err
		}
	}
	if err := p.pack(ctx); err != nil {
		return err
	}
	sb := superblock{
		Magic:      magic,
		Inodes:     uint32(len(p.tree.nodes)),
		Time:       uint32(p.o.Time.Unix()),
		BlockSize:  uint32(p.o.BlockSize),
		Fragments:  uint32(len(p.fragments)),
		Compressor: compressorIDs[p.spec.codec],
		BlockLog:   uint16(bits.TrailingZeros(uint(p.o.BlockSize))),
		Flags:      p.spec.flags() | flagDuplicates | flagExportable,
		Major:      4,
	}
	if err := p.writeTables(&sb); err != nil {
		return err
	}
	sb.BytesUsed = uint64(p.out.at)
	p.summary = Summary{
		Reused:      p.summary.Reused,
		Files:       p.tree.files,
		Directories: p.tree.directories(),
		Links:       p.tree.links,
		InputBytes:  p.tree.inputBytes,
		Codec:       p.spec.codec.String(), CodecVersion: p.spec.version,
		Level: p.spec.level, BlockSize: p.o.BlockSize,
	}
	if err := p.out.write([]byte(noteHead + p.summary.Compressor() + "\n")); err != nil {
		return err
	}
	size, err := p.out.finish(sb.marshal())
	if err != nil {
		return err
	}
	p.summary.Size = size
	p.meter.finish()
	return nil
}

// writeTables writes the tables in the order that the kernel insists on.
func (p *packer) writeTables(sb *superblock) error {
	encoder, err := p.spec.openTables()
	if err != nil {
		return err
	}
	defer encoder.close()
	for _, n := range p.tree.nodes {
		n.xattrSet = p.tree.xattr.add(n.xattrs)
	}
	ids, err := p.writeInodes(sb, encoder)
	if err != nil {
		return err
	}
	if sb.FragmentTable, err = p.writeFragmentTable(encoder); err != nil {
		return err
	}
	export := make([]byte, 0, len(p.tree.nodes)*exportEntrySize)
	for _, n := range p.tree.nodes {
		export = binary.LittleEndian.AppendUint64(export, n.ref)
	}
	if sb.ExportTable, err = writeLookup(p.out, encoder, export, nil); err != nil {
		return err
	}
	sb.IDs = uint16(len(ids.list))
	var list []byte
	for _, id := range ids.list {
		list = binary.LittleEndian.AppendUint32(list, id)
	}
	if sb.IDTable, err = writeLookup(p.out, encoder, list, nil); err != nil {
		return err
	}
	return p.writeXattrTable(sb, encoder)
}

func (p *packer) writeInodes(sb *superblock, e encoder) (*idTable, error) {
	ids := &idTable{byID: map[uint32]uint16{}}
	w := inodeWriter{
		time: uint32(p.o.ModTime.Unix()), ids: ids, count: sb.Inodes,
		inodes: newMetaWriter(e), dirs: newMetaWriter(e),
	}
	err := w.tree(p.tree.root)
	if err != nil {
		return nil, err
	}
	sb.Root = p.tree.root.ref
	if sb.InodeTable, err = w.inodes.finish(p.out); err != nil {
		return nil, err
	}
	if len(w.inodes.out) > math.MaxUint32 {
		return nil, fault.New(fault.Invalid, "the tree has too many files for squashfs")
	}
	sb.DirectoryTable, err = w.dirs.finish(p.out)
	return ids, err
}

func (p *packer) writeFragmentTable(e encoder) (uint64, error) {
	var table []byte
	for _, f := range p.fragments {
		table = binary.LittleEndian.AppendUint64(table, f.Start)
		table = binary.LittleEndian.AppendUint32(table, f.Word)
		table = binary.LittleEndian.AppendUint32(table, 0)
	}
	return writeLookup(p.out, e, table, nil)
}

func (p *packer) writeXattrTable(sb *superblock, e encoder) error {
	sets := &p.tree.xattr
	if len(sets.sets) == 0 {
		sb.XattrTable = noTable
		sb.Flags |= flagNoXattrs
		return nil
	}
	values := newMetaWriter(e)
	var heads []byte
	for i, set := range sets.sets {
		heads = binary.LittleEndian.AppendUint64(heads, values.ref())
		heads = binary.LittleEndian.AppendUint32(heads, sets.heads[i].Count)
		heads = binary.LittleEndian.AppendUint32(heads, sets.heads[i].Size)
		values.write(set)
	}
	start, err := values.finish(p.out)
	if err != nil {
		return err
	}
	head := binary.LittleEndian.AppendUint64(nil, start)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(sets.sets)))
	head = binary.LittleEndian.AppendUint32(head, 0)
	sb.XattrTable, err = writeLookup(p.out, e, heads, head)
	return err
}

// idTable numbers the users and groups of an image.
type idTable struct {
	list []uint32
	byID map[uint32]uint16
}

func (t *idTable) index(id uint32) (uint16, error) {
	if i, ok := t.byID[id]; ok {
		return i, nil
	}
	if len(t.list) == maxIDs {
		return 0, fault.New(fault.Invalid, "the tree has more than %d users and groups", maxIDs)
	}
	i := uint16(len(t.list))
	t.byID[id] = i
	t.list = append(t.list, id)
	return i, nil
}

func (t *tree) directories() int {
	count := 0
	for _, n := range t.nodes {
		if n.isDir() {
			count++
		}
	}
	return count
}
