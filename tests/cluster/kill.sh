#!/bin/bash
# Kills the processes of one name on a node, as a crash would. Usage: kill.sh DIR NODE NAME
set -euo pipefail
. "$(dirname "$0")/settings.sh"

on_node "$2" pkill -KILL -x "$3"
