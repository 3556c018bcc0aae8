/** Small square matrices. */

export type Matrix = number[][];

/** The inverse of a symmetric, positive definite matrix, and the logarithm of its determinant, by Cholesky. */
export function inverted(matrix: Matrix): [Matrix, number] {
  const size = matrix.length;
  const lower = matrix.map((row) => row.map(() => 0));
  let logDet = 0;
  for (let row = 0; row < size; row++) {
    for (let column = 0; column <= row; column++) {
      let sum = matrix[row][column];
      for (let k = 0; k < column; k++) sum -= lower[row][k] * lower[column][k];
      lower[row][column] = row === column ? Math.sqrt(sum) : sum / lower[column][column];
    }
    logDet += 2 * Math.log(lower[row][row]);
  }
  const inverse = matrix.map((row) => row.map(() => 0));
  for (let column = 0; column < size; column++) {
    const solved = new Array<number>(size).fill(0);
    for (let row = 0; row < size; row++) {
      let sum = Number(row === column);
      for (let k = 0; k < row; k++) sum -= lower[row][k] * solved[k];
      solved[row] = sum / lower[row][row];
    }
    for (let row = size - 1; row >= 0; row--) {
      let sum = solved[row];
      for (let k = row + 1; k < size; k++) sum -= lower[k][row] * inverse[k][column];
      inverse[row][column] = sum / lower[row][row];
    }
  }
  return [inverse, logDet];
}

/** Eigenvalues of [[a, b], [b, c]], the larger first. */
export function eigenvalues(a: number, b: number, c: number): [number, number] {
  const middle = (a + c) / 2;
  const half = Math.hypot((a - c) / 2, b);
  return [middle + half, middle - half];
}
