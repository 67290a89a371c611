// Command csi-driver serves the volumes of the test bed: each a tmpfs of its own size, which grows while it is in use.
//
// A volume is a directory below -volumes: `size` holds what it was last promised to be, in bytes, and on `data` a tmpfs is
// mounted. Growing has two parts, as it has for disks: the controller notes the new size, the node remounts with it. A tmpfs and
// not a disk image on a loop device, because growing a mounted ext4 asks for CAP_SYS_RESOURCE, which a sandbox may lack, and
// because nothing but a mount is left to be taken away. The data live as long as the mount: until the volume is deleted, or the
// host is started anew.
//
// All nodes of the bed share the host's mounts, so every instance of this program can do everything: one is the controller's, one
// is each node's and introduces itself to its kubelet.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	// driverName is the name in StorageClasses and in the CSIDriver object.
	driverName = "volumes.testbed.quorate.dev"
	// version is told to whoever asks; nobody compares it.
	version = "1"
	// sizeOtherwise is the size of a volume about whose size nothing is said.
	sizeOtherwise int64 = 64 << 20
	// sizeMax is where this storage ends: it is the host's memory. What asks for more is refused, as by a disk array that is full.
	sizeMax int64 = 4 << 30
)

var (
	volumes      = flag.String("volumes", "", "directory of the volumes")
	socket       = flag.String("socket", "", "socket to serve CSI on")
	node         = flag.String("node", "", "name of this node")
	registrySock = flag.String("registration", "", "socket to make in the kubelet's plugins_registry; none: no kubelet is told")
)

func main() {
	flag.Parse()
	if *volumes == "" || *socket == "" {
		log.Fatal("csi-driver: -volumes and -socket are needed")
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(logged))
	served := &driver{}
	csi.RegisterIdentityServer(server, served)
	csi.RegisterControllerServer(server, served)
	csi.RegisterNodeServer(server, served)
	failed := make(chan error)
	serve(server, *socket, failed)
	if *registrySock != "" {
		introduction := grpc.NewServer()
		registration.RegisterRegistrationServer(introduction, &introducer{})
		serve(introduction, *registrySock, failed)
	}
	log.Fatalf("csi-driver: %v", <-failed)
}

// serve listens on a socket, in the place of one that a dead predecessor has left.
func serve(server *grpc.Server, path string, failed chan<- error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Fatalf("csi-driver: remove the old socket: %v", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		log.Fatalf("csi-driver: %v", err)
	}
	log.Printf("serving on %s", path)
	go func() { failed <- server.Serve(listener) }()
}

// logged writes a line for every call that changes something or fails.
func logged(ctx context.Context, request any, call *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	answer, err := handle(ctx, request)
	name := call.FullMethod[strings.LastIndexByte(call.FullMethod, '/')+1:]
	if err != nil || strings.HasSuffix(name, "Volume") {
		log.Printf("%s %v: %v", name, request, err)
	}
	return answer, err
}

// introducer tells the kubelet of the driver.
type introducer struct {
	registration.UnimplementedRegistrationServer
}

func (*introducer) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: driverName, Endpoint: *socket, SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (*introducer) NotifyRegistrationStatus(
	_ context.Context, told *registration.RegistrationStatus,
) (*registration.RegistrationStatusResponse, error) {
	log.Printf("the kubelet knows the driver: %v %s", told.PluginRegistered, told.Error)
	return &registration.RegistrationStatusResponse{}, nil
}

type driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer
	// mutex has one change made at a time.
	mutex sync.Mutex
}

// Identity.

func (*driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: driverName, VendorVersion: version}, nil
}

func (*driver) GetPluginCapabilities(
	context.Context, *csi.GetPluginCapabilitiesRequest,
) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{
		{Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{
			Type: csi.PluginCapability_Service_CONTROLLER_SERVICE,
		}}},
		{Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &csi.PluginCapability_VolumeExpansion{
			Type: csi.PluginCapability_VolumeExpansion_ONLINE,
		}}},
	}}, nil
}

func (*driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

// Controller.

func (*driver) ControllerGetCapabilities(
	context.Context, *csi.ControllerGetCapabilitiesRequest,
) (*csi.ControllerGetCapabilitiesResponse, error) {
	var all []*csi.ControllerServiceCapability
	for _, can := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
	} {
		all = append(all, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{
			Rpc: &csi.ControllerServiceCapability_RPC{Type: can},
		}})
	}
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: all}, nil
}

func (d *driver) CreateVolume(_ context.Context, request *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if err := checkCapabilities(request.VolumeCapabilities); err != nil {
		return nil, err
	}
	wanted, err := wantedSize(request.CapacityRange)
	if err != nil {
		return nil, err
	}
	volume, err := named(request.Name)
	if err != nil {
		return nil, err
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if size, err := volume.size(); err == nil && size != wanted {
		return nil, status.Errorf(codes.AlreadyExists, "volume %s exists with %d bytes", request.Name, size)
	}
	// Called again after it failed half-way, it goes on where it stopped: the size is written first and mounted last.
	if err := os.MkdirAll(volume.data(), 0o755); err != nil {
		return nil, internal("make a volume", err)
	}
	if err := volume.promise(wanted); err != nil {
		return nil, err
	}
	if mounted, err := isMounted(volume.data()); err != nil || mounted {
		return created(request.Name, wanted), err
	}
	options := fmt.Sprintf("size=%d,mode=0755", wanted)
	if err := unix.Mount("quorate-volume", volume.data(), "tmpfs", 0, options); err != nil {
		return nil, internal("mount a volume", err)
	}
	return created(request.Name, wanted), nil
}

func created(id string, size int64) *csi.CreateVolumeResponse {
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: id, CapacityBytes: size}}
}

func (d *driver) DeleteVolume(_ context.Context, request *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	volume, err := named(request.VolumeId)
	if err != nil {
		return nil, err
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if err := unmount(volume.data()); err != nil {
		return nil, err
	}
	// Not RemoveAll: whatever is still below would be somebody's data.
	for _, path := range []string{volume.data(), volume.sizeFile(), string(volume)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, internal("delete a volume", err)
		}
	}
	return &csi.DeleteVolumeResponse{}, nil
}

func (d *driver) ControllerExpandVolume(
	_ context.Context, request *csi.ControllerExpandVolumeRequest,
) (*csi.ControllerExpandVolumeResponse, error) {
	volume, size, err := existing(request.VolumeId)
	if err != nil {
		return nil, err
	}
	if request.CapacityRange == nil {
		return nil, status.Error(codes.InvalidArgument, "a capacity range is needed")
	}
	wanted, err := wantedSize(request.CapacityRange)
	if err != nil {
		return nil, err
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if wanted > size {
		if err := volume.promise(wanted); err != nil {
			return nil, err
		}
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: max(size, wanted), NodeExpansionRequired: true}, nil
}

func (*driver) ValidateVolumeCapabilities(
	_ context.Context, request *csi.ValidateVolumeCapabilitiesRequest,
) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if _, _, err := existing(request.VolumeId); err != nil {
		return nil, err
	}
	if err := checkCapabilities(request.VolumeCapabilities); err != nil {
		return nil, err
	}
	return &csi.ValidateVolumeCapabilitiesResponse{
		Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{VolumeCapabilities: request.VolumeCapabilities},
	}, nil
}

// Node.

func (*driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: *node}, nil
}

func (*driver) NodeGetCapabilities(
	context.Context, *csi.NodeGetCapabilitiesRequest,
) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{Capabilities: []*csi.NodeServiceCapability{
		{Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{
			Type: csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		}}},
	}}, nil
}

func (d *driver) NodePublishVolume(
	_ context.Context, request *csi.NodePublishVolumeRequest,
) (*csi.NodePublishVolumeResponse, error) {
	if request.TargetPath == "" || request.VolumeCapability == nil {
		return nil, status.Error(codes.InvalidArgument, "a target path and a capability are needed")
	}
	if err := checkCapabilities([]*csi.VolumeCapability{request.VolumeCapability}); err != nil {
		return nil, err
	}
	volume, size, err := existing(request.VolumeId)
	if err != nil {
		return nil, err
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if mounted, err := isMounted(volume.data()); err != nil {
		return nil, err
	} else if !mounted {
		return nil, status.Errorf(codes.DataLoss, "volume %s was in memory and is gone", request.VolumeId)
	}
	// What was promised while no pod used it.
	if err := volume.grow(size); err != nil {
		return nil, err
	}
	if mounted, err := isMounted(request.TargetPath); err != nil || mounted {
		return &csi.NodePublishVolumeResponse{}, err
	}
	if err := os.MkdirAll(request.TargetPath, 0o750); err != nil {
		return nil, internal("make the target", err)
	}
	if err := unix.Mount(volume.data(), request.TargetPath, "", unix.MS_BIND, ""); err != nil {
		return nil, internal("publish a volume", err)
	}
	if request.Readonly {
		flags := uintptr(unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY)
		if err := unix.Mount("", request.TargetPath, "", flags, ""); err != nil {
			return nil, internal("make a volume read-only", err)
		}
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (d *driver) NodeUnpublishVolume(
	_ context.Context, request *csi.NodeUnpublishVolumeRequest,
) (*csi.NodeUnpublishVolumeResponse, error) {
	if request.VolumeId == "" || request.TargetPath == "" {
		return nil, status.Error(codes.InvalidArgument, "a volume and a target path are needed")
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if err := unmount(request.TargetPath); err != nil {
		return nil, err
	}
	if err := os.Remove(request.TargetPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, internal("remove the target", err)
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (d *driver) NodeExpandVolume(
	_ context.Context, request *csi.NodeExpandVolumeRequest,
) (*csi.NodeExpandVolumeResponse, error) {
	if request.VolumePath == "" {
		return nil, status.Error(codes.InvalidArgument, "a volume path is needed")
	}
	volume, size, err := existing(request.VolumeId)
	if err != nil {
		return nil, err
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	// Only what the controller has promised is given: a node does not decide about space.
	if err := volume.grow(size); err != nil {
		return nil, err
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: size}, nil
}

// Volumes.

// volume is the directory of one.
type volume string

// pathPart is what may be the name of a volume: one part of a path that leads nowhere else.
var pathPart = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

func named(id string) (volume, error) {
	if id == "" {
		return "", status.Error(codes.InvalidArgument, "a volume must have a name")
	}
	if !pathPart.MatchString(id) {
		// What cannot have been made is not there.
		return "", status.Errorf(codes.NotFound, "%q is no volume of this driver", id)
	}
	return volume(filepath.Join(*volumes, id)), nil
}

// existing finds a volume and what it was last promised to be.
func existing(id string) (volume, int64, error) {
	found, err := named(id)
	if err != nil {
		return "", 0, err
	}
	size, err := found.size()
	if errors.Is(err, fs.ErrNotExist) {
		return "", 0, status.Errorf(codes.NotFound, "there is no volume %s", id)
	}
	if err != nil {
		return "", 0, internal("read the size of a volume", err)
	}
	return found, size, nil
}

func (v volume) data() string     { return filepath.Join(string(v), "data") }
func (v volume) sizeFile() string { return filepath.Join(string(v), "size") }

func (v volume) size() (int64, error) {
	text, err := os.ReadFile(v.sizeFile())
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(text), 10, 64)
}

func (v volume) promise(size int64) error {
	beside := v.sizeFile() + ".new"
	if err := os.WriteFile(beside, []byte(strconv.FormatInt(size, 10)), 0o644); err != nil {
		return internal("note the size of a volume", err)
	}
	if err := os.Rename(beside, v.sizeFile()); err != nil {
		return internal("note the size of a volume", err)
	}
	return nil
}

// grow gives the file system its size. All of its mounts see it at once.
func (v volume) grow(size int64) error {
	if err := unix.Mount("", v.data(), "", unix.MS_REMOUNT, fmt.Sprintf("size=%d", size)); err != nil {
		return internal("grow a volume", err)
	}
	return nil
}

func wantedSize(wanted *csi.CapacityRange) (int64, error) {
	size := sizeOtherwise
	if wanted.GetRequiredBytes() > 0 {
		size = wanted.GetRequiredBytes()
	}
	if limit := wanted.GetLimitBytes(); limit > 0 && limit < size {
		return 0, status.Errorf(codes.OutOfRange, "a volume of %d bytes is more than the limit of %d", size, limit)
	}
	if size > sizeMax {
		return 0, status.Errorf(codes.OutOfRange, "a volume has at most %d bytes here, not %d", sizeMax, size)
	}
	return size, nil
}

func checkCapabilities(all []*csi.VolumeCapability) error {
	if len(all) == 0 {
		return status.Error(codes.InvalidArgument, "capabilities are needed")
	}
	for _, one := range all {
		if one.GetBlock() != nil {
			return status.Error(codes.InvalidArgument, "the volumes are file systems and no block devices")
		}
	}
	return nil
}

func isMounted(path string) (bool, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, internal("read the mount table", err)
	}
	// proc_pid_mountinfo(5): the fifth field is the mount point.
	at := func(line string) bool {
		fields := strings.Fields(line)
		return len(fields) > 4 && fields[4] == filepath.Clean(path)
	}
	return slices.ContainsFunc(strings.Split(string(table), "\n"), at), nil
}

func unmount(path string) error {
	mounted, err := isMounted(path)
	if err != nil || !mounted {
		return err
	}
	if err := unix.Unmount(path, 0); err != nil {
		return internal("unmount "+path, err)
	}
	return nil
}

func internal(what string, err error) error {
	return status.Errorf(codes.Internal, "%s: %v", what, err)
}
