/**
 * Who may do what: the one declaration that the tests prove cell by cell, and from which docs/rls-matrix.md and
 * supabase/tests/ are written. A table, sequence, function or route that is not named here fails the tests.
 */
import {
  auditFunctions,
  auditGeneratedFunctions,
  auditRoutes,
  auditSequences,
  auditTables,
} from './matrix/audit.ts'
import { holdfastFunctions, holdfastSequences, holdfastTables } from './matrix/holdfast.ts'
import type { RouteRules, TableRules, Uses } from './matrix/rules.ts'
import { healthRoutes, shopFunctions, shopRoutes, shopTables } from './matrix/shop.ts'

export {
  type Cells,
  type Command,
  commands,
  type Reach,
  type RoleName,
  roles,
  type RouteRules,
  type TableRules,
  type Uses,
} from './matrix/rules.ts'

/** The schemas it speaks of; one that does not exist has no names here either. */
export const schemas = ['public', 'private', 'holdfast', 'audit'] as const

/** Tables and views by their qualified names. A partition counts as its parent and may have no grants of its own. */
export const tables: Record<string, TableRules> = { ...shopTables, ...holdfastTables, ...auditTables }

export const sequences: Record<string, Uses> = { ...holdfastSequences, ...auditSequences }

/** By their text as `regprocedure` with an empty search path, for example `private.cancel_order(uuid)`. */
export const functions: Record<string, Uses> = { ...shopFunctions, ...holdfastFunctions, ...auditFunctions }

/** Functions that the database makes by itself; `*` in a name is a number, and each of its functions is run. */
export const generatedFunctions: Record<string, Uses> = { ...auditGeneratedFunctions }

/** Routes of edge functions, below `/functions/v1`. */
export const routes: Record<string, RouteRules> = { ...shopRoutes, ...auditRoutes, ...healthRoutes }
