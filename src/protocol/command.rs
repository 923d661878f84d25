//! Command bytes and what is known of each.
