# Runs one RabbitMQ node for a test process, and ends it when that process is gone, in whatever way
# it went.
#
#   sh supervisor.sh DIRECTORY RABBITMQ_SERVER       with the node's environment
#
# Standard input is a pipe that only the test process holds open. The line "start" starts the node;
# any line, and the end of the pipe, kills it. After the end of the pipe nothing runs any more, and
# DIRECTORY is removed. Standard output tells what happened: "started PID", "ended STATUS".

trap '' PIPE # nobody may be left to read what is written
exec 3<&0 2>>"$1/log"

# The port mapper of this node alone. Erlang would start one by itself, but in the background, where
# it outlives the node.
epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 </dev/null >/dev/null 3<&- &
epmd=$!
tries=0
until epmd -port "$ERL_EPMD_PORT" -names </dev/null >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -gt 1000 ]; then
        echo "Erlang's port mapper, epmd, does not run"
        rm -rf "$1"
        exit 1
    fi
    sleep 0.05
done

while read -r command <&3; do
    [ "$command" = start ] || continue # the node ended just before it was to be killed
    "$2" -noinput </dev/null >>"$1/log" 2>&1 3<&- &
    node=$!
    (
        exec >/dev/null
        read -r _ <&3
        kill -s KILL "$node"
    ) &
    killer=$!
    echo "started $node"
    wait "$node"
    status=$?
    kill "$killer"
    wait "$killer"
    echo "ended $status"
done

kill "$epmd"
wait "$epmd"
rm -rf "$1"
