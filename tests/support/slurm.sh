#!/usr/bin/env bash
# A one-node Slurm for tests: munged, slurmctld and slurmd, everything they write in one folder. Needs root and Debian's
# `slurm-wlm` and `munge`; no systemd, no cgroups, no accounting.
#
#   slurm.sh start FOLDER    prints the path of slurm.conf, to be exported as SLURM_CONF
#   slurm.sh stop FOLDER
#
# Partition `main` is the default. A job in `urgent` pre-empts one in `main`, which gets four seconds and is queued again.
set -euo pipefail
action=$1 folder=$2
export PATH=$PATH:/usr/sbin:/sbin
conf=$folder/slurm.conf

stop() {
    local daemon pid
    for daemon in slurmd slurmctld munged; do
        pid=$(cat "$folder/$daemon.pid" 2>/dev/null) || continue
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
        kill -9 "$pid" 2>/dev/null || true
    done
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

start() {
    local host
    host=$(hostname -s)
    mkdir -p "$folder/state" "$folder/spool"
    chmod 755 "$folder"
    head -c 128 /dev/urandom > "$folder/munge.key"
    chmod 600 "$folder/munge.key"
    cat > "$conf" <<CONF
ClusterName=bench
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=5
MinJobAge=300
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=4
PartitionName=urgent Nodes=$host MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
CONF
    export SLURM_CONF=$conf
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munged.seed" >/dev/null 2>&1
    slurmctld -i -f "$conf"
    slurmd -f "$conf"
    for _ in $(seq 150); do
        if [ "$(sinfo --noheader --partition=main --format=%T 2>/dev/null)" = idle ]; then
            echo "$conf"
            return
        fi
        sleep 0.2
    done
    echo "the node did not come up:" >&2
    tail -n 20 "$folder"/slurmctld.log "$folder"/slurmd.log "$folder"/munged.log >&2
    stop
    exit 1
}

"$action"
