//! Settings: loading, validation, live changes.
