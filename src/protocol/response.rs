//! What may come next in an answer, and whether it is over.
