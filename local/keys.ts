/**
 * The keys of the local stack. They are the ones every `supabase start` uses, so clients configured for that
 * work unchanged. They protect nothing: the stack listens on 127.0.0.1 only.
 */
export const localKeys = {
  publishable: 'sb_publishable_ACJWlzQHlZjBrEguHvfOxg_3BJgxAaH',
  secret: 'sb_secret_N7UND0UgjKTVK-Uodkm0Hg_xSvEMPvz',
  jwtSecret: 'super-secret-jwt-token-with-at-least-32-characters-long',
} as const

/** Users that `supabase/seed.sql` creates. */
export const demoUsers = [
  { email: 'ada@example.com', password: 'holdfast-ada' },
  { email: 'grace@example.com', password: 'holdfast-grace' },
  { email: 'admin@example.com', password: 'holdfast-admin' },
] as const
