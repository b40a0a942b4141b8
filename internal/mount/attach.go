package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
)

const (
	fuseDevice = "/dev/fuse"
	fuseHelper = "fusermount3"
)

// attachment is a mount of which we are to serve the content.
type attachment struct {
	fd     int // of the kernel's questions
	detach func(ctx context.Context) error
}

// attach mounts at dir. By itself it takes a capability that root has, and
// everybody in a user namespace of their own. Elsewhere the setuid helper of FUSE
// mounts; it also unmounts when this program was killed.
func attach(ctx context.Context, image, dir string, alone bool) (attachment, error) {
	if helper, ok := proc.Look(fuseHelper); ok && !alone {
		return attachByHelper(ctx, helper, image, dir)
	}
	a, err := attachAlone(image, dir)
	if errors.Is(err, unix.EPERM) {
		err = fault.WithHint(fault.New(fault.Failure, "mounting is for root, or takes the program %s, which is not installed", fuseHelper),
			"apt-get install fuse3; 'uenv-ci run' does without")
	}
	return a, err
}

// attachAlone mounts by mount(2).
func attachAlone(image, dir string) (attachment, error) {
	fd, err := unix.Open(fuseDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return attachment{}, &os.PathError{Op: "open", Path: fuseDevice, Err: err}
	}
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,default_permissions,allow_other", fd, unix.S_IFDIR, os.Geteuid(), os.Getegid())
	err = unix.Mount(image, dir, "fuse.squashfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, options)
	if err != nil {
		unix.Close(fd)
		return attachment{}, &os.PathError{Op: "mount", Path: dir, Err: err}
	}
	return attachment{fd, func(context.Context) error {
		err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
		if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: somebody else was first
			return &os.PathError{Op: "unmount", Path: dir, Err: err}
		}
		return nil
	}}, nil
}

// attachByHelper has the helper mount and hand over the device. The helper stays,
// and unmounts when our end of the socket is closed without that having been done.
func attachByHelper(ctx context.Context, helper, image, dir string) (attachment, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return attachment{}, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "socket"), os.NewFile(uintptr(pair[1]), "socket")
	options := "ro,nosuid,nodev,default_permissions,auto_unmount,subtype=squashfs"
	if os.Geteuid() == 0 {
		options += ",allow_other"
	}
	c := proc.Cmd{
		Path: helper, Args: []string{"-o", options, "--", dir}, Env: append(toolEnv(), "_FUSE_COMMFD=3"),
		ExtraFiles: []*os.File{theirs}, Outlives: true,
	}
	process, err := c.Start(context.WithoutCancel(ctx))
	theirs.Close()
	if err != nil {
		ours.Close()
		return attachment{}, err
	}
	ended := make(chan error, 1)
	go func() { ended <- process.Wait() }()
	fd, err := receive(ours)
	if err != nil {
		ours.Close()
		return attachment{}, errors.Join(err, <-ended)
	}
	return attachment{fd, func(ctx context.Context) error {
		defer ours.Close()
		unmount := proc.Cmd{Path: helper, Args: []string{"-u", "-z", "--", dir}, Env: toolEnv()}
		return unmount.Run(context.WithoutCancel(ctx))
	}}, nil
}

// receive takes a file descriptor from a socket.
func receive(socket *os.File) (int, error) {
	data, control := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	var size int
	raw, err := socket.SyscallConn()
	if err != nil {
		return -1, err
	}
	controlErr := raw.Control(func(fd uintptr) {
		err = retryInterrupted(func() (err error) {
			_, size, _, _, err = unix.Recvmsg(int(fd), data, control, unix.MSG_CMSG_CLOEXEC)
			return err
		})
	})
	if err := errors.Join(controlErr, err); err != nil {
		return -1, fmt.Errorf("receive the device: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:size])
	if err != nil || len(messages) == 0 {
		return -1, errors.Join(io.ErrUnexpectedEOF, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.Join(io.ErrUnexpectedEOF, err)
	}
	return fds[0], nil
}

func retryInterrupted(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// clearDead removes a mount whose program was killed, which nobody can use any
// more.
func clearDead(ctx context.Context, dir string) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != unix.ENOTCONN {
		return
	}
	if unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
		return
	}
	if helper, ok := proc.Look(fuseHelper); ok {
		_ = proc.Cmd{Path: helper, Args: []string{"-u", "-z", "--", dir}, Env: toolEnv()}.Run(ctx)
	}
}

// magicPath is how the FUSE module is told that the mount is there already.
func magicPath(fd int) string { return filepath.Join("/dev/fd", strconv.Itoa(fd)) }
