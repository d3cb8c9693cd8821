#!/usr/bin/python3
"""rates.py DIR SECONDS: prints each pod's packet rates once a second, from `vdpactl` on the node."""

import json
import subprocess
import sys
import time


def vdpactl(directory, command):
    out = subprocess.run([f"{directory}/bin/kubectl", f"--kubeconfig={directory}/kubeconfig", "-n", "vdpa-system", "exec",
                          "ds/vdpa-datapath", "-c", "vdpa-datapath", "--", "vdpactl", "-o", "json", command],
                         check=True, capture_output=True, text=True, timeout=30).stdout
    return json.loads(out)


def sample(directory):
    return time.monotonic(), {s["device"]: s for s in vdpactl(directory, "stats")}


def main():
    directory, seconds = sys.argv[1], int(sys.argv[2])
    pods = {a["device"]: a["pod"] for a in vdpactl(directory, "attachments") if a["attached"]}
    then, before = sample(directory)
    for _ in range(seconds):
        time.sleep(max(0.0, then + 1 - time.monotonic()))
        now, after = sample(directory)
        columns = []
        for device in sorted(after):
            received = after[device]["rx_packets"]
            rate = {way: (after[device][way] - before.get(device, {}).get(way, 0)) / (now - then)
                    for way in ("rx_packets", "tx_packets")}
            columns.append(f"{pods.get(device, device):>6} ({device}): sends {rate['tx_packets']:>9,.0f}/s, "
                           f"receives {rate['rx_packets']:>9,.0f}/s, {received:>11,} in all")
        print("   ".join(columns), flush=True)
        then, before = now, after


main()
