//! What a statement may do to session state that no tracker shows.
