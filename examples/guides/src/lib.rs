//! The program that the guide to tests has for an example.
//!
//! The other programs of the guides are in `src/bin`, one in each file.

pub mod invoices;
