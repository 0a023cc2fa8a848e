#!/bin/sh
# One round with the programs of Debian's amqp-tools: round_amqp_tools.sh URL
set -eu

url=$1
queue=amqp-tools-$$

fail() {
    echo "$1" >&2
    exit 1
}

same() {
    [ "$1" = "$2" ] || fail "$3: '$1' instead of '$2'"
}

# Declare, publish, get.
same "$(amqp-declare-queue --url="$url" --queue="$queue")" "$queue" "the queue's name"
amqp-publish --url="$url" --routing-key="$queue" --body='Hello World!' \
    --content-type=text/plain --persistent --reply-to=nobody --header='colour: red'
same "$(amqp-get --url="$url" --queue="$queue")" 'Hello World!' 'the message'
if amqp-get --url="$url" --queue="$queue"; then
    fail 'the queue should be empty'
fi

# Consume, a program for each message; a line of input for each message.
printf 'one\ntwo\nthree\n' | amqp-publish --url="$url" --routing-key="$queue" --line-buffered
taken=$(timeout 120 amqp-consume --url="$url" --queue="$queue" --count=3 --prefetch-count=1 cat)
same "$(printf '%s' "$taken" | tr -d '\n')" 'onetwothree' 'the lines'

# Through an exchange, to a queue of the consumer's own.
timeout 120 amqp-consume --url="$url" --exchange=amq.topic \
    --routing-key="$queue.#" --count=1 cat >"${TMPDIR:-/tmp}/$queue" &
consumer=$!
tries=0
while ! grep -q routed "${TMPDIR:-/tmp}/$queue"; do
    tries=$((tries + 1))
    [ "$tries" -le 100 ] || fail 'nothing came through the exchange'
    amqp-publish --url="$url" --exchange=amq.topic --routing-key="$queue.x" --body=routed
    sleep 0.1
done
wait "$consumer"
rm -f "${TMPDIR:-/tmp}/$queue"

# Mistakes.
if amqp-get --url="$url" --queue="missing-$queue" 2>"${TMPDIR:-/tmp}/$queue.error"; then
    fail 'there is no such queue'
fi
grep -q "404.*NOT_FOUND - no queue 'missing-$queue'" "${TMPDIR:-/tmp}/$queue.error" \
    || fail "a missing queue is told as: $(cat "${TMPDIR:-/tmp}/$queue.error")"
rm -f "${TMPDIR:-/tmp}/$queue.error"
amqp-delete-queue --url="$url" --queue="$queue" >/dev/null
