//! Sharing backend connections: plain data under a short lock.
