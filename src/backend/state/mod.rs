//! Session variables: the catalog, interned states, replay and read-back.
