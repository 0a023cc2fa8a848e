//! The places of the states and arrows of the four drawings.

use super::draw::{Layout, Route};

const NOTE: &str = "Each arrow is what the machine does when a method comes in, a command is called, or the transport ends.";

/// An arrow for everything but faults, or for all if the pair has no other.
const fn route(
    from: &'static str,
    to: &'static str,
    points: &'static [(i32, i32)],
    label: (i32, i32),
    columns: usize,
) -> Route {
    Route {
        from,
        to,
        fault: false,
        points,
        label,
        columns,
    }
}

/// An arrow for faults.
const fn fault(
    from: &'static str,
    to: &'static str,
    points: &'static [(i32, i32)],
    label: (i32, i32),
    columns: usize,
) -> Route {
    Route {
        fault: true,
        ..route(from, to, points, label, columns)
    }
}

pub(super) const CLIENT_CONNECTION: Layout = Layout {
    file: "client-connection.svg",
    title: "A client's connection",
    note: NOTE,
    size: (1000, 860),
    group: Some((
        "Handshake",
        &["Expects start", "Expects secure or tune", "Expects open-ok"],
        [100, 84, 360, 344],
    )),
    states: &[
        ("Expects start", [120, 124, 260, 48]),
        ("Expects secure or tune", [120, 230, 260, 66]),
        ("Expects open-ok", [120, 356, 260, 48]),
        ("Open", [120, 490, 260, 102]),
        ("Draining", [120, 650, 260, 48]),
        ("Closing", [120, 756, 260, 48]),
        ("Closed", [740, 516, 200, 50]),
    ],
    routes: &[
        route(
            "Expects start",
            "Expects secure or tune",
            &[(250, 172), (250, 230)],
            (262, 206),
            40,
        ),
        route(
            "Expects secure or tune",
            "Expects open-ok",
            &[(250, 296), (250, 356)],
            (262, 331),
            40,
        ),
        route(
            "Expects open-ok",
            "Open",
            &[(250, 404), (250, 490)],
            (262, 462),
            40,
        ),
        route(
            "Handshake",
            "Closed",
            &[(460, 256), (840, 256), (840, 516)],
            (480, 192),
            60,
        ),
        fault(
            "Expects open-ok",
            "Closing",
            &[(120, 380), (48, 380), (48, 780), (120, 780)],
            (56, 452),
            13,
        ),
        fault(
            "Open",
            "Closing",
            &[(120, 541), (84, 541), (84, 780), (120, 780)],
            (92, 614),
            13,
        ),
        route(
            "Open",
            "Draining",
            &[(280, 592), (280, 650)],
            (292, 626),
            40,
        ),
        route("Open", "Closed", &[(380, 541), (740, 541)], (396, 512), 50),
        route(
            "Draining",
            "Closing",
            &[(250, 698), (250, 756)],
            (262, 732),
            40,
        ),
        route(
            "Draining",
            "Closed",
            &[(380, 674), (800, 674), (800, 566)],
            (396, 624),
            40,
        ),
        route(
            "Closing",
            "Closed",
            &[(380, 780), (880, 780), (880, 566)],
            (500, 734),
            50,
        ),
    ],
    shared: &[],
};

pub(super) const SERVER_CONNECTION: Layout = Layout {
    file: "server-connection.svg",
    title: "A server's connection",
    note: NOTE,
    size: (1060, 1040),
    group: Some((
        "Handshake",
        &[
            "Expects header",
            "Expects start-ok",
            "Decides on the login",
            "Expects secure-ok",
            "Expects tune-ok",
            "Expects open",
            "Decides on the host",
        ],
        [100, 84, 640, 536],
    )),
    states: &[
        ("Expects header", [120, 120, 260, 44]),
        ("Expects start-ok", [120, 204, 260, 44]),
        ("Decides on the login", [120, 288, 260, 44]),
        ("Expects secure-ok", [556, 288, 172, 44]),
        ("Expects tune-ok", [120, 372, 260, 44]),
        ("Expects open", [120, 456, 260, 44]),
        ("Decides on the host", [120, 550, 260, 44]),
        ("Open", [120, 688, 260, 86]),
        ("Draining", [120, 836, 260, 44]),
        ("Closing", [120, 930, 260, 44]),
        ("Closed", [800, 706, 200, 50]),
    ],
    routes: &[
        route(
            "Expects header",
            "Expects start-ok",
            &[(250, 164), (250, 204)],
            (262, 189),
            40,
        ),
        route(
            "Expects start-ok",
            "Decides on the login",
            &[(250, 248), (250, 288)],
            (262, 273),
            40,
        ),
        route(
            "Decides on the login",
            "Expects secure-ok",
            &[(380, 301), (556, 301)],
            (390, 294),
            40,
        ),
        route(
            "Expects secure-ok",
            "Decides on the login",
            &[(556, 319), (380, 319)],
            (390, 336),
            40,
        ),
        route(
            "Decides on the login",
            "Expects tune-ok",
            &[(250, 332), (250, 372)],
            (262, 357),
            40,
        ),
        route(
            "Expects tune-ok",
            "Expects open",
            &[(250, 416), (250, 456)],
            (262, 441),
            40,
        ),
        route(
            "Expects open",
            "Decides on the host",
            &[(250, 500), (250, 550)],
            (262, 530),
            40,
        ),
        route(
            "Decides on the host",
            "Open",
            &[(250, 594), (250, 688)],
            (262, 654),
            40,
        ),
        route(
            "Decides on the host",
            "Draining",
            &[(380, 572), (560, 572), (560, 858), (380, 858)],
            (470, 596),
            40,
        ),
        route(
            "Handshake",
            "Closed",
            &[(740, 400), (900, 400), (900, 706)],
            (756, 318),
            36,
        ),
        fault(
            "Open",
            "Closing",
            &[(120, 731), (70, 731), (70, 952), (120, 952)],
            (78, 804),
            13,
        ),
        route(
            "Open",
            "Draining",
            &[(280, 774), (280, 836)],
            (292, 814),
            40,
        ),
        route("Open", "Closed", &[(380, 731), (800, 731)], (396, 688), 18),
        route(
            "Draining",
            "Closing",
            &[(250, 880), (250, 930)],
            (262, 910),
            40,
        ),
        route(
            "Draining",
            "Closed",
            &[(380, 870), (860, 870), (860, 756)],
            (580, 820),
            40,
        ),
        route(
            "Closing",
            "Closed",
            &[(380, 960), (950, 960), (950, 756)],
            (600, 914),
            46,
        ),
    ],
    shared: &[],
};

/// The arrows that are in the same place in the drawings of both channels.
const BOTH_CHANNELS: &[Route] = &[
    route("Open", "Closing", &[(390, 490), (274, 490)], (282, 510), 13),
    route("Closing", "Free", &[(76, 450), (76, 202)], (84, 420), 40),
    route(
        "Header due",
        "Open",
        &[(860, 334), (720, 334)],
        (728, 352),
        16,
    ),
    route(
        "Header due",
        "Body due",
        &[(930, 348), (930, 460)],
        (812, 410),
        40,
    ),
    route(
        "Body due",
        "Open",
        &[(860, 484), (720, 484)],
        (728, 476),
        40,
    ),
    route(
        "Header due",
        "Closing",
        &[
            (1020, 324),
            (1030, 324),
            (1030, 616),
            (164, 616),
            (164, 534),
        ],
        (740, 608),
        40,
    ),
    route(
        "Body due",
        "Closing",
        &[(940, 508), (940, 616), (164, 616), (164, 534)],
        (740, 608),
        40,
    ),
    route(
        "One channel number of an open connection",
        "Connection closing",
        &[(555, 634), (555, 690)],
        (567, 667),
        60,
    ),
];

pub(super) const CLIENT_CHANNEL: Layout = Layout {
    file: "client-channel.svg",
    title: "A client's channel",
    note: NOTE,
    size: (1060, 790),
    group: Some((
        "One channel number of an open connection",
        &[
            "Free",
            "Opening",
            "Open",
            "Header due",
            "Body due",
            "Closing",
        ],
        [24, 84, 1012, 550],
    )),
    states: &[
        ("Free", [60, 130, 180, 72]),
        ("Opening", [420, 120, 290, 84]),
        ("Open", [390, 274, 330, 300]),
        ("Header due", [860, 300, 160, 48]),
        ("Body due", [860, 460, 160, 48]),
        ("Closing", [44, 450, 230, 84]),
        ("Connection closing", [390, 690, 330, 50]),
    ],
    routes: &[
        route("Free", "Opening", &[(240, 146), (420, 146)], (252, 124), 18),
        route("Opening", "Free", &[(420, 186), (240, 186)], (252, 204), 18),
        route("Opening", "Open", &[(560, 204), (560, 274)], (572, 246), 40),
        fault(
            "Opening",
            "Closing",
            &[(470, 204), (470, 236), (224, 236), (224, 450)],
            (236, 256),
            24,
        ),
        route(
            "Open",
            "Free",
            &[(390, 340), (110, 340), (110, 202)],
            (236, 316),
            22,
        ),
        route(
            "Open",
            "Header due",
            &[(720, 316), (860, 316)],
            (728, 291),
            16,
        ),
    ],
    shared: BOTH_CHANNELS,
};

pub(super) const SERVER_CHANNEL: Layout = Layout {
    file: "server-channel.svg",
    title: "A server's channel",
    states: &[
        ("Free", [60, 130, 180, 72]),
        ("Open", [390, 240, 330, 300]),
        ("Header due", [860, 300, 160, 48]),
        ("Body due", [860, 460, 160, 48]),
        ("Closing", [44, 450, 230, 84]),
        ("Connection closing", [390, 690, 330, 50]),
    ],
    group: Some((
        "One channel number of an open connection",
        &["Free", "Open", "Header due", "Body due", "Closing"],
        [24, 84, 1012, 550],
    )),
    routes: &[
        route(
            "Free",
            "Open",
            &[(240, 154), (555, 154), (555, 240)],
            (256, 146),
            40,
        ),
        route(
            "Open",
            "Free",
            &[(390, 340), (110, 340), (110, 202)],
            (130, 332),
            60,
        ),
        route(
            "Open",
            "Header due",
            &[(720, 316), (860, 316)],
            (728, 308),
            16,
        ),
    ],
    ..CLIENT_CHANNEL
};
