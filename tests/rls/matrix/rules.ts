/** The words of the matrix: roles, commands, how far a command reaches, and the rows that many tables share. */

/**
 * `owner` and `other` are two signed-in customers, `admin` is signed in with `app_metadata.role = "admin"`:
 * to the database all three are `authenticated`.
 */
export const roles = ['anon', 'owner', 'other', 'admin', 'service_role'] as const
export type RoleName = typeof roles[number]

export const commands = ['select', 'insert', 'update', 'delete'] as const
export type Command = typeof commands[number]

/**
 * How far a command of a role reaches.
 * - `denied`: the statement is refused (42501).
 * - `none`: it runs and reaches no row.
 * - `own`: the rows of the caller that are not soft-deleted. An insert: only a row that names the caller as its owner.
 * - `visible`: every row that is not soft-deleted.
 * - `all`: every row.
 */
export type Reach = 'denied' | 'none' | 'own' | 'visible' | 'all'
export type Cells = Record<RoleName, Reach>

/** A table or view: one sentence about who may do what, and the cells that prove it. */
export interface TableRules extends Record<Command, Cells> {
  about: string
}

/** Of a function: who may execute it. Of a sequence: who may draw from it, look at it or set it. */
export type Uses = Record<RoleName, 'may' | 'denied'>

/** A route of an edge function: the status that each role gets for the owner's resource, or for their own list. */
export interface RouteRules {
  about: string
  /** Whether a 2xx changes rows; every other answer must change none. */
  writes: boolean
  status: Record<RoleName, number>
}

export const nobody: Cells = {
  anon: 'denied',
  owner: 'denied',
  other: 'denied',
  admin: 'denied',
  service_role: 'denied',
}

export const onlyService: Cells = { ...nobody, service_role: 'all' }

/** Written by functions that run with the owner's rights, if at all. */
export const noWrites = { insert: nobody, update: nobody, delete: nobody }

/** The secret key writes; everybody else goes through a function. */
export const serviceWrites = { insert: onlyService, update: onlyService, delete: onlyService }

export const noRole: Uses = {
  anon: 'denied',
  owner: 'denied',
  other: 'denied',
  admin: 'denied',
  service_role: 'denied',
}

export const everyRole: Uses = { anon: 'may', owner: 'may', other: 'may', admin: 'may', service_role: 'may' }

export const signedIn: Uses = { ...noRole, owner: 'may', other: 'may', admin: 'may' }

/** The same rule for many names. */
export function each<T>(rule: T, names: readonly string[]): Record<string, T> {
  return Object.fromEntries(names.map((name) => [name, rule]))
}
