//! Capability flags by name: always to the backend, pool key, never offered.
