/** rate-limiter-flexible, as its wiki has it: a pool of `pg`, a client of ioredis, or memory. Its statements are named. */
import { Redis } from 'ioredis'
// @ts-types="./pg.d.ts"
import pg from 'pg'
import { RateLimiterMemory, RateLimiterPostgres, RateLimiterRedis } from 'rate-limiter-flexible'
import { quota, type Subject, windowSeconds } from './subject.ts'

export interface FlexiblePostgresOptions {
  /** The wiki lets the table be created beforehand. Unlogged it costs least, and is what ours has. */
  unlogged: boolean
  connections: number
}

const common = { points: quota, duration: windowSeconds }

export async function openFlexiblePostgres(
  url: string,
  { unlogged, connections }: FlexiblePostgresOptions,
): Promise<Subject> {
  const pool = new pg.Pool({ connectionString: url, max: connections })
  const tableName = unlogged ? 'flexible_unlogged' : 'flexible'
  if (unlogged) await pool.query(createTable(tableName))
  const limiter = await new Promise<RateLimiterPostgres>((resolve, reject) => {
    const options = { ...common, storeClient: pool, tableName, keyPrefix: '', tableCreated: unlogged }
    const limiter: RateLimiterPostgres = new RateLimiterPostgres(
      options,
      (error) => error ? reject(error) : queueMicrotask(() => resolve(limiter)),
    )
  })
  return {
    consume: (key) => limiter.consume(key),
    close: () => pool.end(),
  }
}

/** Its own table, but for the one word. Several processes ask for it at once, which PostgreSQL does not always take. */
function createTable(name: string): string {
  return `
    do $$
    begin
      perform pg_advisory_xact_lock(1);
      create unlogged table if not exists "${name}" (
        key varchar(255) primary key,
        points integer not null default 0,
        expire bigint
      );
    end $$`
}

export function openFlexibleRedis(url: string): Subject {
  const client = new Redis(url, { enableOfflineQueue: true })
  const limiter = new RateLimiterRedis({ ...common, storeClient: client, keyPrefix: 'flexible' })
  return {
    consume: (key) => limiter.consume(key),
    close: () => Promise.resolve(client.disconnect()),
  }
}

export function openFlexibleMemory(): Subject {
  const limiter = new RateLimiterMemory(common)
  return {
    consume: (key) => limiter.consume(key),
    close: () => Promise.resolve(),
  }
}
