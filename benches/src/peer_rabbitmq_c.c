/* rabbitmq-c, measured at one load: a connection, one channel on it, one thread.
 *
 *   HOST PORT USER PASSWORD VHOST SECONDS LOAD COUNT SIZE WINDOW QUEUE ROUTING_KEY CONSUMER_TAG ACK_EVERY
 *
 * Prints the nanoseconds that passed and those that the processor worked, both of the timed part
 * alone, and how many publishes and acknowledgements the small server has counted. Ends after SECONDS
 * at the latest, as nothing here has a limit of its own: each would read the clock once per message.
 */

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if defined(__has_include) && __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/tcp_socket.h>
#else
#include <amqp.h>
#include <amqp_tcp_socket.h>
#endif

#define CHANNEL 1
#define FRAME_MAX 131072

/* Repeated to the size of a body. */
static const char BODY[] = "sixteen bytes...";

struct settings {
  const char *host;
  int port;
  const char *user;
  const char *password;
  const char *vhost;
  uint64_t count;
  size_t size;
  uint64_t window;
  amqp_bytes_t queue;
  amqp_bytes_t routing_key;
  amqp_bytes_t consumer_tag;
  uint64_t ack_every;
};

/* A measurement that is under way, then the one that was made. */
struct watch {
  uint64_t passed;
  uint64_t worked;
};

/* The counts of the small server. */
struct counts {
  uint64_t published;
  uint64_t acks;
};

static void fail(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void check_status(int status, const char *what) {
  if (status != AMQP_STATUS_OK) {
    fail(what, amqp_error_string2(status));
  }
}

/* Fails with the text of a close by the server. */
static void fail_closed(const char *what, const amqp_method_t *method) {
  amqp_bytes_t text = amqp_cstring_bytes("an unexpected method");
  char why[256] = "";
  if (method->id == AMQP_CHANNEL_CLOSE_METHOD) {
    text = ((amqp_channel_close_t *)method->decoded)->reply_text;
  } else if (method->id == AMQP_CONNECTION_CLOSE_METHOD) {
    text = ((amqp_connection_close_t *)method->decoded)->reply_text;
  }
  size_t len = text.len < sizeof why - 1 ? text.len : sizeof why - 1;
  memcpy(why, text.bytes, len);
  fail(what, why);
}

static void check_reply(amqp_rpc_reply_t reply, const char *what) {
  switch (reply.reply_type) {
    case AMQP_RESPONSE_NORMAL:
      return;
    case AMQP_RESPONSE_LIBRARY_EXCEPTION:
      fail(what, amqp_error_string2(reply.library_error));
      return;
    case AMQP_RESPONSE_SERVER_EXCEPTION:
      fail_closed(what, &reply.reply);
      return;
    default:
      fail(what, "no reply");
  }
}

static void check_size(amqp_bytes_t body, const struct settings *settings) {
  if (body.len != settings->size) {
    fail("a message", "a body of another size");
  }
}

static uint64_t nanoseconds(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static struct watch start_watch(void) {
  struct watch watch;
  watch.worked = nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
  watch.passed = nanoseconds(CLOCK_MONOTONIC);
  return watch;
}

static void stop_watch(struct watch *watch) {
  watch->passed = nanoseconds(CLOCK_MONOTONIC) - watch->passed;
  watch->worked = nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - watch->worked;
}

static amqp_connection_state_t open_connection(const struct settings *settings) {
  amqp_connection_state_t connection = amqp_new_connection();
  amqp_socket_t *socket = amqp_tcp_socket_new(connection);
  if (!socket) {
    fail("a socket", "no memory");
  }
  check_status(amqp_socket_open(socket, settings->host, settings->port), "connect");
  check_reply(amqp_login(connection, settings->vhost, 0, FRAME_MAX, 0, AMQP_SASL_METHOD_PLAIN,
                         settings->user, settings->password),
              "login");
  return connection;
}

static void close_connection(amqp_connection_state_t connection) {
  check_reply(amqp_connection_close(connection, AMQP_REPLY_SUCCESS), "connection.close");
  check_status(amqp_destroy_connection(connection), "the end of a connection");
}

static struct counts count(amqp_connection_state_t connection, const struct settings *settings) {
  amqp_queue_declare_ok_t *answer = amqp_queue_declare(
      connection, CHANNEL, settings->routing_key, 1, 0, 0, 0, amqp_empty_table);
  check_reply(amqp_get_rpc_reply(connection), "queue.declare");
  struct counts counts = {answer->message_count, answer->consumer_count};
  amqp_maybe_release_buffers(connection);
  return counts;
}

static void publish_one(amqp_connection_state_t connection, const struct settings *settings,
                        amqp_bytes_t body) {
  check_status(amqp_basic_publish(connection, CHANNEL, amqp_empty_bytes, settings->routing_key, 0, 0,
                                  NULL, body),
               "basic.publish");
}

static void get(amqp_connection_state_t connection, const struct settings *settings) {
  for (uint64_t left = settings->count; left > 0; left--) {
    amqp_rpc_reply_t reply = amqp_basic_get(connection, CHANNEL, settings->queue, 1);
    check_reply(reply, "basic.get");
    if (reply.reply.id != AMQP_BASIC_GET_OK_METHOD) {
      fail("basic.get", "the queue is empty");
    }
    amqp_message_t message;
    check_reply(amqp_read_message(connection, CHANNEL, &message, 0), "a message");
    check_size(message.body, settings);
    amqp_destroy_message(&message);
    amqp_maybe_release_buffers(connection);
  }
}

/* Waits for the next confirm; returns the number up to which all publishes are confirmed. `confirmed`
 * marks those beyond it, of which there are fewer than the window. */
static uint64_t wait_confirm(amqp_connection_state_t connection, const struct settings *settings,
                             uint64_t published, uint64_t up_to, char *confirmed) {
  amqp_frame_t frame;
  check_status(amqp_simple_wait_frame(connection, &frame), "a confirm");
  if (frame.frame_type != AMQP_FRAME_METHOD) {
    fail("a confirm", "another frame");
  }
  if (frame.payload.method.id != AMQP_BASIC_ACK_METHOD) {
    fail_closed("a confirm", &frame.payload.method);
  }
  amqp_basic_ack_t *ack = frame.payload.method.decoded;
  if (ack->delivery_tag <= up_to || ack->delivery_tag > published) {
    fail("a confirm", "of no message");
  }
  if (ack->multiple) {
    while (up_to < ack->delivery_tag) {
      confirmed[++up_to % settings->window] = 0;
    }
  } else {
    confirmed[ack->delivery_tag % settings->window] = 1;
  }
  while (up_to < published && confirmed[(up_to + 1) % settings->window]) {
    confirmed[++up_to % settings->window] = 0;
  }
  amqp_maybe_release_buffers(connection);
  return up_to;
}

/* Publishes until the window is full, then waits for a confirm and takes all that have come with it. */
static void publish_confirmed(amqp_connection_state_t connection, const struct settings *settings,
                              amqp_bytes_t body) {
  uint64_t published = 0;
  uint64_t up_to = 0;
  char *confirmed = calloc(settings->window, 1);
  if (!confirmed) {
    fail("the window", "no memory");
  }
  while (up_to < settings->count) {
    while (published < settings->count && published - up_to < settings->window) {
      publish_one(connection, settings, body);
      published++;
    }
    do {
      up_to = wait_confirm(connection, settings, published, up_to, confirmed);
    } while (up_to < published &&
             (amqp_frames_enqueued(connection) || amqp_data_in_buffer(connection)));
  }
  free(confirmed);
}

static void deliver(amqp_connection_state_t connection, const struct settings *settings, int no_ack) {
  amqp_basic_consume(connection, CHANNEL, settings->queue, settings->consumer_tag, 0, no_ack, 0,
                     amqp_empty_table);
  check_reply(amqp_get_rpc_reply(connection), "basic.consume");
  for (uint64_t number = 1; number <= settings->count; number++) {
    amqp_envelope_t envelope;
    amqp_maybe_release_buffers(connection);
    check_reply(amqp_consume_message(connection, &envelope, NULL, 0), "a delivery");
    check_size(envelope.message.body, settings);
    if (!no_ack && number % settings->ack_every == 0) {
      check_status(amqp_basic_ack(connection, CHANNEL, envelope.delivery_tag, 1), "basic.ack");
    }
    amqp_destroy_envelope(&envelope);
  }
}

static struct watch run(const char *load, const struct settings *settings, struct counts *counts) {
  struct watch watch;
  if (!strcmp(load, "connect")) {
    watch = start_watch();
    for (uint64_t left = settings->count; left > 0; left--) {
      close_connection(open_connection(settings));
    }
    stop_watch(&watch);
    return watch;
  }
  amqp_bytes_t body = {settings->size, malloc(settings->size + 1)};
  if (!body.bytes) {
    fail("a body", "no memory");
  }
  for (size_t at = 0; at < settings->size; at++) {
    ((char *)body.bytes)[at] = BODY[at % (sizeof BODY - 1)];
  }
  amqp_connection_state_t connection = open_connection(settings);
  amqp_channel_open(connection, CHANNEL);
  check_reply(amqp_get_rpc_reply(connection), "channel.open");
  if (!strcmp(load, "confirm")) {
    amqp_confirm_select(connection, CHANNEL);
    check_reply(amqp_get_rpc_reply(connection), "confirm.select");
  }
  watch = start_watch();
  if (!strcmp(load, "round-trip")) {
    for (uint64_t left = settings->count; left > 0; left--) {
      count(connection, settings);
    }
  } else if (!strcmp(load, "get")) {
    get(connection, settings);
  } else if (!strcmp(load, "publish")) {
    for (uint64_t left = settings->count; left > 0; left--) {
      publish_one(connection, settings, body);
    }
    *counts = count(connection, settings);
  } else if (!strcmp(load, "confirm")) {
    publish_confirmed(connection, settings, body);
    *counts = count(connection, settings);
  } else if (!strcmp(load, "deliver")) {
    deliver(connection, settings, 0);
    *counts = count(connection, settings);
  } else if (!strcmp(load, "deliver-no-ack")) {
    deliver(connection, settings, 1);
  } else {
    fail(load, "no such load");
  }
  stop_watch(&watch);
  close_connection(connection);
  free(body.bytes);
  return watch;
}

static void on_alarm(int signal) {
  (void)signal;
  static const char text[] = "no end within the limit\n";
  ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
  (void)written;
  _exit(1);
}

int main(int argc, char **argv) {
  if (argc != 15) {
    fail("arguments", "wrong number");
  }
  struct settings settings = {
      .host = argv[1],
      .port = atoi(argv[2]),
      .user = argv[3],
      .password = argv[4],
      .vhost = argv[5],
      .count = strtoull(argv[8], NULL, 10),
      .size = strtoull(argv[9], NULL, 10),
      .window = strtoull(argv[10], NULL, 10),
      .queue = amqp_cstring_bytes(argv[11]),
      .routing_key = amqp_cstring_bytes(argv[12]),
      .consumer_tag = amqp_cstring_bytes(argv[13]),
      .ack_every = strtoull(argv[14], NULL, 10),
  };
  struct counts counts = {0, 0};
  signal(SIGALRM, on_alarm);
  alarm((unsigned)atoi(argv[6]));
  struct watch watch = run(argv[7], &settings, &counts);
  printf("%llu %llu %llu %llu\n", (unsigned long long)watch.passed, (unsigned long long)watch.worked,
         (unsigned long long)counts.published, (unsigned long long)counts.acks);
  return 0;
}
