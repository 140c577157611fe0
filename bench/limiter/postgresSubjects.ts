/** Whoever keeps limits in PostgreSQL, by name: for the bench's own process and for six others. */
import { openFlexiblePostgres } from './flexible.ts'
import { openHoldfastPostgres } from './holdfast.ts'
import type { keysOf, Subject } from './subject.ts'

export type Keys = keyof typeof keysOf
/** `connections` is for who does not decide that by itself. */
type Open = (url: string, connections: number) => Subject | Promise<Subject>

export const postgresSubjects = {
  holdfast: (url) => openHoldfastPostgres(url, { prepare: true }),
  'holdfast, unnamed': (url) => openHoldfastPostgres(url, { prepare: false }),
  'holdfast, leases of 100': (url) => openHoldfastPostgres(url, { prepare: false, lease: 100 }),
  'rate-limiter-flexible': (url, connections) => openFlexiblePostgres(url, { unlogged: false, connections }),
  'rate-limiter-flexible, unlogged': (url, connections) =>
    openFlexiblePostgres(url, { unlogged: true, connections }),
} satisfies Record<string, Open>

export type PostgresSubject = keyof typeof postgresSubjects
const all = Object.keys(postgresSubjects) as PostgresSubject[]
const asking = all.filter((name) => name !== 'holdfast, leases of 100')

/** Who takes tokens ahead asks so seldom that it only says something of a key that is hot. */
export const subjectsOn: Record<Keys, PostgresSubject[]> = { 'hot key': all, '10,000 keys': asking }

/** What one process gives the peer: waiting for one row, more connections only get in each other's way. */
export const peerConnections: Record<Keys, number> = { 'hot key': 4, '10,000 keys': 16 }

export const peers = ['rate-limiter-flexible', 'rate-limiter-flexible, unlogged'] as const
