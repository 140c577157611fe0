/** What a limit costs over each store, from one process and from several, and what a request's guards cost together. */
import type { Suite } from '../support/suite.ts'
import { guards } from './guards.ts'
import { memory } from './memory.ts'
import { postgres } from './postgres.ts'
import { processes } from './processes.ts'
import { redis } from './redis.ts'

export const suite: Suite = {
  packages: ['rate-limiter-flexible', 'pg', 'postgres', 'ioredis'],
  postgres: true,
  measures: [memory, postgres, processes, redis, guards],
}
