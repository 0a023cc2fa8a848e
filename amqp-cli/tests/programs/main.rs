//! The program on the embedded broker and on RabbitMQ.

mod amqp_tools;
mod brokers;
mod consuming;
mod entities;
mod failures;
mod publishing;
mod readme;
mod rig;
mod rpc;
mod settings;
mod tls;

use std::process::ExitCode;

use amqp_tests::harness::{self, Outcome, Scenario};

use self::rig::{Place, embedded};

/// A test on a broker.
type Test = fn(&Place) -> Outcome;

/// A test that brings its own broker, or has none.
type Alone = fn() -> Outcome;

/// A test and its name.
macro_rules! tests {
    ($($module:ident :: $name:ident),* $(,)?) => {
        [$((concat!(stringify!($module), "::", stringify!($name)), $module::$name)),*]
    };
}

fn main() -> ExitCode {
    let on_both: [(&str, Test); 27] = tests![
        publishing::a_body_is_published_and_got,
        publishing::lines_are_messages_in_order,
        publishing::messages_that_no_queue_takes_are_reported,
        publishing::unconfirmed_messages_are_written_and_taken_again,
        publishing::unconfirmed_messages_do_not_replace_what_is_still_needed,
        publishing::a_missing_exchange_ends_the_run,
        publishing::returned_messages_are_reported_without_confirms,
        publishing::octets_of_all_kinds_arrive,
        publishing::json_has_all_properties_both_ways,
        consuming::messages_are_printed_and_acknowledged,
        consuming::a_closed_pipe_is_no_failure,
        consuming::a_command_runs_for_each_message,
        consuming::a_failed_command_leaves_the_message,
        consuming::a_failed_command_can_reject_the_message,
        consuming::a_signal_ends_it_in_good_order,
        consuming::no_message_is_taken_for_a_count_of_0,
        consuming::a_command_that_a_signal_ends_leaves_the_message,
        consuming::an_exchange_is_watched,
        consuming::queues_are_declared_and_bound_on_request,
        entities::queues_are_declared_purged_and_deleted,
        entities::exchanges_and_bindings_come_and_go,
        failures::things_that_are_missing_end_with_3,
        rpc::calls_are_served_by_a_command,
        rpc::requests_are_sent_in_their_order,
        rpc::a_reply_is_printed_though_the_next_one_is_late,
        brokers::a_bench_has_rates,
        brokers::a_ping_names_the_broker,
    ];
    let on_embedded: [(&str, Test); 10] = tests![
        publishing::more_is_published_than_there_is_memory,
        publishing::large_messages_arrive,
        failures::huge_headers_arrive,
        failures::misuse_ends_with_2,
        failures::a_wrong_login_ends_with_4,
        failures::a_login_is_read_from_a_file,
        failures::a_full_disk_ends_with_1,
        amqp_tools::the_same_options_do_the_same,
        readme::the_commands_of_the_readme_print_what_it_says,
        readme::the_examples_of_the_help_run,
    ];
    let alone: [(&str, Alone); 13] = tests![
        consuming::a_restart_of_the_broker_is_survived,
        consuming::a_signal_ends_the_wait_for_a_lost_broker,
        consuming::a_signal_ends_it_though_the_broker_is_silent,
        publishing::a_restart_of_the_broker_loses_nothing,
        failures::no_broker_ends_with_4,
        failures::a_silent_broker_ends_with_5,
        settings::the_url_has_an_order_of_sources,
        settings::completions_and_manuals_are_printed,
        brokers::a_broker_is_served_and_keeps_its_data,
        brokers::a_proxy_shows_frames_without_secrets,
        brokers::a_signal_ends_a_proxy_whose_output_is_not_read,
        rpc::a_lost_connection_ends_the_calls,
        tls::brokers_are_verified_and_proxied,
    ];
    let mut scenarios = Vec::new();
    for (name, test) in on_both.into_iter().chain(on_embedded) {
        scenarios.push(Scenario::local(format!("{name}::embedded"), move || {
            let (_broker, place) = embedded()?;
            test(&place)
        }));
    }
    for (name, test) in on_both {
        scenarios.push(Scenario::shared(
            format!("{name}::rabbitmq"),
            move |broker| test(&Place { url: broker.uri }),
        ));
    }
    for (name, test) in alone {
        scenarios.push(Scenario::local(name, test));
    }
    harness::run(scenarios)
}
