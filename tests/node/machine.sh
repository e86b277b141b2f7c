# A node's programs on a machine of their own: to be run by `unshare --mount --pid --fork --kill-child` inside the node's network
# namespace. When this ends, so does all that runs on the machine, and its mounts are gone.
# Arguments: a folder for its files, the folder of kubelet and kube-proxy, the kubeconfig, its name, its address, the name of
# its control group.
set -eu
folder=$1 tools=$2 kubeconfig=$3 name=$4 address=$5 groups=$6

# What is written to these stays on this machine.
mount -t proc proc /proc
mount -t tmpfs run /run
for top in etc opt var; do
    mkdir -p "$folder/$top" "$folder/.$top"
    mount -t overlay overlay -o "lowerdir=/$top,upperdir=$folder/$top,workdir=$folder/.$top" "/$top"
done
# An overlay cannot be part of another one.
for path in /var/lib/containerd /var/lib/kubelet; do
    mkdir -p "$folder$path.own" "$path"
    mount --bind "$folder$path.own" "$path"
done
mkdir -p /etc/cni/net.d /opt/cni/bin
cp /usr/lib/cni/* /opt/cni/bin/
cp "$folder/10-bridge.conflist" /etc/cni/net.d/

hierarchies=/sys/fs/cgroup
[ -e /sys/fs/cgroup/cgroup.controllers ] || hierarchies=$(echo /sys/fs/cgroup/*)
for hierarchy in $hierarchies; do
    [ -e "$hierarchy/cgroup.procs" ] || continue
    mkdir -p "$hierarchy/$groups"
    # A new group of this hierarchy has no processors until it is given some.
    for file in cpuset.cpus cpuset.mems; do
        [ ! -e "$hierarchy/$file" ] || cat "$hierarchy/$file" >"$hierarchy/$groups/$file"
    done
done

containerd --config "$folder/containerd.toml" >"$folder/containerd.log" 2>&1 &
until ctr version >/dev/null 2>&1; do sleep 0.1; done
for image in "$folder"/images/*.tar; do
    ctr --namespace k8s.io images import "$image" >/dev/null
done
"$tools/kubelet" --config="$folder/kubelet.yaml" --kubeconfig="$kubeconfig" --root-dir=/var/lib/kubelet \
    --hostname-override="$name" --node-ip="$address" >"$folder/kubelet.log" 2>&1 &
"$tools/kube-proxy" --kubeconfig="$kubeconfig" --proxy-mode=nftables --hostname-override="$name" \
    --cluster-cidr=10.244.0.0/16 --conntrack-max-per-core=0 >"$folder/kube-proxy.log" 2>&1 &
echo "the node's programs run"
wait
