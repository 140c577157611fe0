/** Validation at the edge, by any library that speaks Standard Schema (zod 4 here). */
import { HoldfastError } from '../core/errors.ts'

/** The part of https://standardschema.dev that Holdfast uses. */
export interface Schema<Output = unknown> {
  readonly '~standard': {
    readonly version: 1
    readonly vendor: string
    readonly validate: (value: unknown) => SchemaResult<Output> | Promise<SchemaResult<Output>>
    readonly types?: { readonly input: unknown; readonly output: Output } | undefined
  }
}

export type SchemaResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: readonly SchemaIssue[] }

export interface SchemaIssue {
  readonly message: string
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined
}

/** Where in the request a value was found. */
export type InputPart = 'params' | 'query' | 'body'

/** One problem of a request, as the client sees it in `error.details`. */
export interface ValidationDetail {
  in: InputPart
  /** `items.0.quantity`; empty for the whole part. */
  path: string
  message: string
}

/** The validated value; throws `VALIDATION_ERROR` that lists every problem. */
export async function validate<Output>(
  schema: Schema<Output>,
  part: InputPart,
  value: unknown,
): Promise<Output> {
  const answer = schema['~standard'].validate(value)
  const result = answer instanceof Promise ? await answer : answer
  if (result.issues === undefined) return result.value
  throw validationError(
    result.issues.map((issue) => ({ in: part, path: pathText(issue.path), message: issue.message })),
  )
}

/** For checks that no schema can state, such as a cursor that does not decode. */
export function validationError(details: ValidationDetail[]): HoldfastError {
  const [first] = details
  const where = first === undefined
    ? ''
    : `: ${[first.in, first.path].filter(Boolean).join('.')}: ${first.message}`
  return new HoldfastError('VALIDATION_ERROR', `The request is not valid${where}`, { details })
}

function pathText(path: SchemaIssue['path'] = []): string {
  return path.map((segment) => String(typeof segment === 'object' ? segment.key : segment)).join('.')
}
