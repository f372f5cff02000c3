//! The penstock program: edge proxy, admin API and composition.
